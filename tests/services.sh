#!/bin/sh
# Installs what the tests need, where it is missing: PostgreSQL 15 or newer, Redis, and Python with venv for the clients' tests.
# Installs only; the harness starts its own private ones. Run it, or source it and call the functions.
set -eu

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_package <Debian package> <Homebrew formula>
install_package() {
  if command -v apt-get >/dev/null; then
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$1"
  elif command -v brew >/dev/null; then
    brew install "$2"
  else
    echo "install $1 with this system's package manager" >&2
    return 1
  fi
}

has_postgres() {
  command -v postgres >/dev/null && return
  for program in /usr/lib/postgresql/*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres \
    /usr/local/opt/postgresql*/bin/postgres /home/linuxbrew/.linuxbrew/opt/postgresql*/bin/postgres; do
    [ -x "$program" ] && return
  done
  return 1
}

install_postgres() {
  [ -n "${BANYAN_TEST_POSTGRES_URL:-}" ] || has_postgres || install_package postgresql postgresql@17
}

install_redis() {
  [ -n "${BANYAN_TEST_REDIS_URL:-}" ] || command -v redis-server >/dev/null || install_package redis-server redis
}

# The clients' own packages come from PyPI, into the build folder, when their test runs.
install_python() {
  python3 -c 'import ensurepip, venv' 2>/dev/null || install_package python3-venv python
}

# When run, not sourced.
case "$0" in
*services.sh)
  install_postgres
  install_redis
  install_python
  ;;
esac
