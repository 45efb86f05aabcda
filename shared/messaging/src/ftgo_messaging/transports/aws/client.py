"""A client of one of AWS' services, opened when it is first needed; its errors as those of the port."""

import asyncio
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore import UNSIGNED
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.aws.address import Address
from ftgo_messaging.transports.port import BrokerRefuses

PATIENCE = 10.0
"""Seconds for an answer, besides what the service was asked to wait."""

_GONE = ("QueueDoesNotExist", "NonExistentQueue", "ResourceNotFoundException")
_PASSING = ("Throttl", "OverLimit", "ServiceUnavailable", "Internal", "QueueDeletedRecently", "LimitExceeded")
"""What codes have in them that another time may be others."""
_LOGIN = (
    *("InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClient", "InvalidAccessKeyId", "ExpiredToken"),
    *("MissingAuthenticationToken", "IncompleteSignature", "AccessDenied", "OptInRequired", "InvalidSecurity"),
)
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role that has rights on "
    "the service's queues"
)


class Gone(TransientError):
    """What was asked for is not there, or not any more."""


@lru_cache(maxsize=1)
def _session() -> AioSession:
    """One for the process: it reads the descriptions of the services, megabytes, once."""
    return get_session()


class Link:
    """``name`` stands in the service's own logs. It repeats nothing: who asks knows what may be sent twice."""

    def __init__(self, address: Address, service: str, name: str, connections: int = 32) -> None:
        self.address = address
        self._service = service
        self._name = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)
        self._connections = connections
        self._open: AsyncExitStack | None = None
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def ask(self, operation: str, seconds: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """The answer; ``seconds`` is how long the service may wait before it gives one. Raises Gone, TransientError
        and BrokerRefuses."""
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                client = self._client or await self._connect()
                answer: dict[str, Any] = await getattr(client, operation)(**arguments)
                return answer
        except ClientError as error:
            raise self._refusal(operation, error) from error
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound) as error:
            raise BrokerRefuses(f"No AWS credentials for {self.address} ({error}): {_CREDENTIALS}.") from error
        except (ConnectionError, HTTPClientError, OSError) as error:  # OSError: also asyncio's own TimeoutError
            raise TransientError(f"{self._title} is away: {type(error).__name__} {error}".strip()) from error
        except ResponseParserError as error:
            raise TransientError(f"{self._title} gave an answer that is none: {error}") from error
        except BotoCoreError as error:
            raise BrokerRefuses(f"{self._title} cannot be asked ({error}): mend FTGO_BROKER_URL.") from error

    async def close(self) -> None:
        opened, self._open, self._client = self._open, None, None
        if opened is not None:
            await opened.aclose()

    async def _connect(self) -> Any:
        async with self._opening:
            if self._client is None:
                async with AsyncExitStack() as stack:
                    self._client = await stack.enter_async_context(await self._create())
                    self._open = stack.pop_all()
            return self._client

    async def _create(self) -> Any:
        session, at = _session(), self.address
        region = at.region or session.get_config_variable("region")
        if not region:
            raise BrokerRefuses(
                "No AWS region is named: put it into FTGO_BROKER_URL (sqs://eu-central-1), or set AWS_DEFAULT_REGION."
            )
        if not at.endpoint:
            await self._check_region(session, region)
        if at.signed and await session.get_credentials() is None:
            raise BrokerRefuses(f"No AWS credentials for {at}: {_CREDENTIALS}.")
        config = AioConfig(
            signature_version=None if at.signed else UNSIGNED,
            retries={"total_max_attempts": 1},
            max_pool_connections=self._connections,
            connect_timeout=PATIENCE,
            read_timeout=2 * PATIENCE + 20,  # the limits of ``ask`` count instead
            user_agent_extra=self._name,
        )
        return session.create_client(self._service, region_name=region, endpoint_url=at.endpoint or None, config=config)

    async def _check_region(self, session: AioSession, region: str) -> None:
        """A name that does not exist would look like a service that is away."""
        partitions = session.get_available_partitions()
        known = {x for p in partitions for x in await session.get_available_regions(self._service, p)}
        if region not in known:
            raise BrokerRefuses(
                f"AWS has no region {region} for {self._service}, as far as this client knows: mend it in "
                "FTGO_BROKER_URL, or install a newer aiobotocore."
            )

    @property
    def _title(self) -> str:
        return f"{self._service.upper()} at {self.address}"

    def _refusal(self, operation: str, error: ClientError) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if any(each in code for each in _GONE):
            return Gone(f"{self._title} has it not: {error}")
        if status >= 500 or any(each in code for each in _PASSING):
            return TransientError(f"{self._title} cannot serve now: {error}")
        if any(each in code for each in _LOGIN):
            # Not its text, which may have parts of what was signed.
            return BrokerRefuses(f"{self._title} refuses our credentials to {operation} ({code}): {_CREDENTIALS}.")
        return BrokerRefuses(f"{self._title} refuses: {error}. Another program may use the same names.")
