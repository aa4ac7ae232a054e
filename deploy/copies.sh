# What deploy/backup and deploy/restore share: settings, and a long statement of ClickHouse with its progress. Sourced.

say() {
  printf '%s\n' "$1" >&2
}

# die MESSAGE REMEDY
die() {
  printf 'error: %s\n  %s\n' "$1" "$2" >&2
  exit 1
}

# begin SCRIPT ARGUMENT…: reads settings into $folder, $postgres_url and $clickhouse_url.
begin() {
  local script=$1
  shift
  if [ $# -ne 1 ] || [[ $1 == -* ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$script" >&2
    exit 2
  fi
  folder=$1
  postgres_url=${KEYMETER_KEYS_OWNER_DATABASE_URL:-}
  [ -n "$postgres_url" ] || die "KEYMETER_KEYS_OWNER_DATABASE_URL is not set" "Give postgres://owner@host/database"
  clickhouse_url=${KEYMETER_INGEST_CLICKHOUSE_URL:-http://127.0.0.1:8123}
}

# place NAME: where ClickHouse keeps the copy, in its own words.
place() {
  local to=${KEYMETER_BACKUP_CLICKHOUSE_TO:-"Disk('backups', 'NAME')"}
  [[ $to == *NAME* ]] || die "KEYMETER_BACKUP_CLICKHOUSE_TO has no NAME" "For example Disk('backups', 'NAME')"
  printf '%s' "${to//NAME/$1}"
}

# ask SQL: prints the answer. User and password go by standard input, where no list of processes shows them.
ask() {
  local answer status
  answer=$({
    printf 'url = "%s/"\nsilent\nshow-error\ndata-binary = "%s"\nwrite-out = "\\n%%{http_code}"\n' \
      "$clickhouse_url" "$(sed 's/[\\"]/\\&/g' <<<"$1")"
    [ -z "${KEYMETER_INGEST_CLICKHOUSE_USER:-}" ] ||
      printf 'header = "X-ClickHouse-User: %s"\n' "$KEYMETER_INGEST_CLICKHOUSE_USER"
    [ -z "${KEYMETER_INGEST_CLICKHOUSE_PASSWORD:-}" ] ||
      printf 'header = "X-ClickHouse-Key: %s"\n' "$KEYMETER_INGEST_CLICKHOUSE_PASSWORD"
  } | curl --config -) || die "ClickHouse does not answer at $clickhouse_url" "Check KEYMETER_INGEST_CLICKHOUSE_URL"
  status=${answer##*$'\n'}
  answer=${answer%$'\n'*}
  [ "$status" = 200 ] || die "ClickHouse: $answer" "Check KEYMETER_BACKUP_CLICKHOUSE_TO and the user's rights"
  printf '%s' "$answer"
}

# copy_clickhouse STATEMENT DONE: runs it in ClickHouse and tells how far it is until its status is DONE.
copy_clickhouse() {
  local id state told=
  id=$(ask "$1 async format TSV")
  id=${id%%$'\t'*}
  while :; do
    state=$(ask "select status, formatReadableSize(greatest(bytes_read, compressed_size)), replaceRegexpAll(splitByString(', Stack trace', error)[1], '\\\\s+', ' ') from system.backups where id = '$id' format TSV")
    case ${state%%$'\t'*} in
      "$2") return ;;
      *FAILED* | *CANCELLED*) die "ClickHouse: ${state##*$'\t'}" "Check KEYMETER_BACKUP_CLICKHOUSE_TO" ;;
      "") die "ClickHouse forgot its work $id" "Was it restarted? Try again" ;;
    esac
    [ "$state" = "$told" ] || say "ClickHouse: $(cut -f 2 <<<"$state")"
    told=$state
    sleep 1
  done
}
