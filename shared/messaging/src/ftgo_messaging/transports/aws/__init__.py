"""Amazon's services as brokers: SQS. The only place that imports aiobotocore and botocore.

Credentials and their renewal are the client's own matter (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role): none stands in a
URL.
"""

from ftgo_messaging.transports.aws.sqs import transport

__all__ = ["transport"]
