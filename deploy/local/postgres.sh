# Postgres of a local stack: its cluster, its user, its database. Postgres refuses to run as root, so for root it
# runs as nobody, or, where nobody cannot reach the clone, as root seen as another user. Sourced by up.

# whom: sets run_as, the words before each command of Postgres.
whom() {
  local nobody=(--reuid=65534 --regid=65534 --clear-groups) mapped=(--user --map-user=65534 --map-group=65534)
  run_as=()
  [ "$(id -u)" -eq 0 ] || return 0
  if setpriv "${nobody[@]}" test -x "$state/data" && [ "$(owner)" != 0 ]; then
    run_as=(setpriv "${nobody[@]}")
  elif unshare "${mapped[@]}" true 2>/dev/null; then
    run_as=(unshare "${mapped[@]}")
  else
    die "Postgres refuses to run as root, and the user nobody cannot reach $state" \
      "Run this as an ordinary user, or from a clone outside of root's home folder"
  fi
}

# Whose the cluster is, if there is one.
owner() {
  stat -c %u "$state/data/postgres" 2>/dev/null || true
}

postgres_password() {
  cat "$state/secrets/postgres-password"
}

postgres_url() {
  printf 'postgres://keymeter:%s@127.0.0.1:%s/keymeter' "$(postgres_password)" "$(port postgres)"
}

# as_service URL: the same database as the role that the keys service runs as.
as_service() {
  local rest=${1#*://}
  [[ ${rest%%[/?]*} != *@* ]] || rest=${rest#*@}
  printf 'postgres://keymeter_keys:%s@%s' "$(cat "$state/secrets/postgres-service-password")" "$rest"
}

start_postgres() {
  whom
  [ -d "$state/data/postgres" ] || make_cluster
  postgres_tls
  start postgres "${run_as[@]}" "$parts/postgres${tls:+-tls}/bin/postgres" -D "$state/data/postgres" \
    -c "port=$(port postgres)" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=on \
    -c synchronous_commit=on -c full_page_writes=on "${postgres_tls[@]}"
}

# Renamed into place when it is whole, so an interrupted run leaves no half of a cluster.
make_cluster() {
  local since=$EPOCHREALTIME new=$state/data/postgres.new password=$state/data/postgres.password
  rm -rf "$new" "$password"
  mkdir -m 700 "$new"
  postgres_password >"$password"
  [ "${run_as[0]:-}" != setpriv ] || chown 65534:65534 "$new" "$password"
  "${run_as[@]}" "$parts/postgres/bin/initdb" --pgdata="$new" --username=keymeter --auth=scram-sha-256 \
    --pwfile="$password" --locale=C.UTF-8 --encoding=UTF8 --no-instructions >"$state/log/initdb.log" 2>&1 ||
    fail initdb "Postgres cannot make its cluster"
  rm -f "$password"
  mv "$new" "$state/data/postgres"
  done_line "new Postgres cluster" "$since"
}

postgres_query() {
  PGPASSWORD=$(postgres_password) PGCONNECT_TIMEOUT=5 "$parts/postgres/bin/psql" --no-psqlrc -qtA -h "$(postgres_host)" \
    -p "$(port postgres)" -U keymeter -d postgres -c "$1" 2>/dev/null
}

postgres_answers() {
  postgres_query "select 1" >/dev/null
}

make_database() {
  [ "$(postgres_query "select 1 from pg_database where datname = 'keymeter'")" = 1 ] ||
    postgres_query "create database keymeter" >/dev/null
}
