#!/bin/bash
# Is there enough free memory to start? Fails with a sentence when there is not. What this sees is the memory of the
# machine that runs the containers: of the virtual machine, where Docker has one.
set -euo pipefail

# Up already, or partly: what is missing then, it uses itself.
for server in postgres/5432 "$FTGO_BROKER_ADDRESS"; do
  if (exec 3<>"/dev/tcp/$server") 2>/dev/null; then exit 0; fi
done

needed=$FTGO_NEEDED_MEMORY_MB
while read -r name kilobytes _; do
  [[ $name != MemAvailable: ]] || available=$((kilobytes / 1024))
done </proc/meminfo

if ((available < needed)); then
  echo "The memory is short: FTGO needs $needed MB, $available MB are free. Close other programs or containers," \
    "or give Docker more memory."
  exit 1
fi
