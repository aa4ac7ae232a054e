# The parts of a local stack: their ports, how one is started, recognised, waited for and stopped. Sourced by up,
# down and reset after lib.sh. State is in .local of the clone: run/ (who runs), log/, data/, secrets/.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
state=$root/.local

# In the order in which they are stopped: callers before what they call.
STOP_ORDER=(traffic ui ui-2 query query-2 edge edge-2 api ingest ingest-2 keys keys-2 clickhouse nats nats-1 nats-2
  nats-3 postgres)

# port NAME: the part's port, moved by $port_offset. The second of two has its port ten higher.
port() {
  local number
  case $1 in
    *-2 | *-2-health)
      if [[ $1 != nats* ]]; then
        printf '%d' $(($(port "${1/-2/}") + 10))
        return 0
      fi ;;&
    nats-[123]) number=$((4221 + ${1#nats-})) ;;
    nats-[123]-health) number=${1#nats-}; number=$((8221 + ${number%-health})) ;;
    nats-[123]-routes) number=${1#nats-}; number=$((6221 + ${number%-routes})) ;;
    ui) number=8080 ;; edge) number=8081 ;; api) number=8082 ;;
    clickhouse) number=8123 ;; nats) number=4222 ;; nats-health) number=8222 ;; postgres) number=5432 ;;
    keys) number=50051 ;; query) number=50052 ;;
    keys-health) number=9101 ;; edge-health) number=9102 ;; ingest-health) number=9103 ;;
    query-health) number=9104 ;; ui-health) number=9105 ;;
    *) die "no port is known for $1" ;;
  esac
  printf '%d' $((number + port_offset))
}

# open_state: makes the folders, and lets one script at a time change what runs. 711 lets Postgres, which may run
# as another user, reach its own folder; the others are for their owner only. What is built is not: see $users_umask.
open_state() {
  users_umask=$(umask)
  umask 077
  mkdir -p "$state/run" "$state/log" "$state/data" "$state/secrets"
  chmod 711 "$state" "$state/data"
  exec 9>"$state/run/lock"
  flock -n 9 || die "another deploy/local script is at work in this clone" "Wait until it has ended"
}

# started_at PID: when the kernel started it, so that a number used again is not taken for the same process.
started_at() {
  local stat boot
  { read -r stat <"/proc/$1/stat" && read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || return 1
  # After the name in brackets, which may hold anything, the first field is the state, the 20th the start.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [ "$1" != Z ] && printf '%s@%s' "${20}" "$boot"
}

# pid_of NAME: prints the part's process id if it runs.
pid_of() {
  local pid start
  read -r pid start 2>/dev/null <"$state/run/$1.pid" || return 1
  [ "$(started_at "$pid")" = "$start" ] && printf '%s' "$pid"
}

is_alive() {
  pid_of "$1" >/dev/null
}

# exec_clean [NAME=VALUE…] COMMAND…: becomes the command, with those variables and none of ours but the few that any
# program needs. Set here and not by env, on whose command line everybody could read them.
exec_clean() {
  local given=(LANG=C.UTF-8) variable
  while [[ $1 =~ ^[A-Z_]+= ]]; do
    given+=("$1")
    shift
  done
  for variable in $(compgen -e); do
    case $variable in
      PATH | HOME | RUST_LOG | RUST_BACKTRACE | OTEL_*) ;;
      *) unset "$variable" ;;
    esac
  done
  export "${given[@]}"
  exec setsid "$@"
}

# start NAME [NAME=VALUE…] COMMAND…: starts a part that goes on after this script, with a log of its own.
start() {
  local name=$1 pid
  shift
  starting=yes
  (cd "$state" && exec_clean "$@") </dev/null >>"$state/log/$name.log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  started+=("$name")
  printf '%s %s\n' "$pid" "$(started_at "$pid")" >"$state/run/$name.pid"
  starting=
  [ -z "$interrupted" ] || exit "$interrupted"
}

# interrupt STATUS: what a signal does: ends the script, but not between the start of a part and the note of its id.
starting=
interrupted=
interrupt() {
  interrupted=$1
  [ -n "$starting" ] || exit "$interrupted"
}

# run_child exec_clean|setsid COMMAND…: runs a command to its end; an interrupt ends it with all that it started.
run_child() {
  local status=0
  "$@" </dev/null 9>&- &
  child=$!
  wait "$child" || status=$?
  child=
  return "$status"
}

# http_ok PORT PATH: whether it answers 200.
http_ok() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    read -r -t 5 _ code _ <&3
    [ "$code" = 200 ]
  ) 2>/dev/null
}

# is_ok PART PATH: whether its port answers 200.
is_ok() {
  if [ -n "$tls" ]; then https_ok "$(port "$1")" "$2"; else http_ok "$(port "$1")" "$2"; fi
}

# wait_until NAME SINCE COMMAND…: waits for the command to succeed while the part runs; one line when it does, if the
# part was just started.
wait_until() {
  local name=$1 since=$2 deadline=$((SECONDS + 120))
  shift 2
  until "$@"; do
    is_alive "$name" || fail "$name" "$name ended before it was ready"
    [ "$SECONDS" -lt "$deadline" ] || fail "$name" "$name is not ready after 120 s"
    sleep 0.1
  done
  ! was_started "$name" || done_line "$name$(where "$name")" "$since"
}

# where NAME: the port that callers of a part use; nothing if it has none.
where() {
  case $1 in
    ingest*) ;;
    *) printf ', port %d' "$(port "$1")" ;;
  esac
}

# was_started NAME: whether this run started it.
was_started() {
  case " ${started[*]-} " in *" $1 "*) ;; *) return 1 ;; esac
}

done_line() {
  printf '  %-44s %6s s\n' "$1" "$(elapsed "$2")" >&2
}

# fail NAME MESSAGE: shows the end of the part's log and dies.
fail() {
  say "--- last lines of .local/log/$1.log"
  tail -n 15 "$state/log/$1.log" | cut -c -400 >&2
  say "---"
  die "$2" "The whole log is in .local/log/$1.log" "Put right what it says, then run deploy/local/up again"
}

# stop NAME: asks the part to end and waits for it; kills it only if it does not within 60 s.
stop() {
  local name=$1 pid signal=TERM since=$EPOCHREALTIME deadline=$((SECONDS + 60))
  pid=$(pid_of "$name") || { rm -f "$state/run/$name.pid"; return 0; }
  # Postgres's "fast" stop: TERM would wait for every client to leave.
  [ "$name" != postgres ] || signal=INT
  kill -s "$signal" "$pid" 2>/dev/null || true
  while is_alive "$name"; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "  $name did not end within 60 s: killed"
      kill -s KILL "$pid" 2>/dev/null || true
      deadline=$((SECONDS + 60))
    fi
    sleep 0.05
  done
  rm -f "$state/run/$name.pid"
  done_line "stopped $name" "$since"
}

# running: the parts that run.
running() {
  local name
  for name in "${STOP_ORDER[@]}"; do
    is_alive "$name" && printf '%s\n' "$name"
  done
  return 0
}
