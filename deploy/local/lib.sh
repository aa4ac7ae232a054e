# Shared by the scripts of this folder: messages, checks of tools, elapsed time. Starts and installs nothing.

# Messages go to the standard error, so that a script's standard output can be read by another.
say() { printf '%s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

# need TOOL PACKAGE: dies with the Debian package that has the tool.
need() {
  command -v "$1" >/dev/null 2>&1 || die "$1 is missing" "On Debian and Ubuntu: apt-get install $2"
}

# Seconds since a value of $EPOCHREALTIME, with one digit.
elapsed() {
  local now=${EPOCHREALTIME/[.,]/} then=${1/[.,]/}
  local tenths=$(((now - then) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# step LABEL COMMAND…: one line with the time that the command took; its output is shown only if it fails.
step() {
  local label=$1 start=$EPOCHREALTIME output status=0
  shift
  output=$("$@" 2>&1) || status=$?
  if [ "$status" -ne 0 ]; then
    printf '  %-44s failed after %s s\n' "$label" "$(elapsed "$start")" >&2
    printf '%s\n' "$output" | tail -n 20 | sed 's/^/    /' >&2
    return "$status"
  fi
  printf '  %-44s %6s s\n' "$label" "$(elapsed "$start")" >&2
}

# Where downloaded components live, outside any clone. For root not in its home folder: Postgres refuses to run
# as root, and whoever runs it instead must be able to read it.
cache_folder() {
  if [ -n "${KEYMETER_CACHE:-}" ]; then
    printf '%s' "$KEYMETER_CACHE"
  elif [ "$(id -u)" -eq 0 ]; then
    printf /var/cache/keymeter
  else
    printf '%s/keymeter' "${XDG_CACHE_HOME:-${HOME:?set HOME or KEYMETER_CACHE}/.cache}"
  fi
}
