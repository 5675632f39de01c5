#!/bin/sh
# Install the Debian packages that the tests with real Slurm clusters need, and start none of the services in them.
# As an ordinary user it only says what is missing: the tests that need Slurm then say so too, and fail in CI.
set -eu
cd "$(dirname "$0")/.."

command -v slurmctld >/dev/null || PATH="$PATH:/usr/sbin:/sbin"
missing=
for name in slurmctld slurmd sbatch munged slurmdbd mariadbd; do
    command -v $name >/dev/null || missing=yes
done
[ $missing ] || exit 0

packages=$(sed -n '/^# Slurm/,$p' requirements/debian.txt | sed 's/#.*//' | xargs)
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: Slurm is not installed, and only root can: apt-get install --no-install-recommends $packages" >&2
    exit 0
fi

# Debian starts a package's services at once. This policy forbids it while we install; one that is there stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi

echo "setup: apt-get install $packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $packages; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
rm "$log"
