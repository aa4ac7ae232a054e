# TLS on every link of a local stack: its authority, who each part is, and what stores are told of it. Sourced by up
# after stack.sh. Without --tls everything here is empty.

# Who has a certificate. The second of two is the same as the first; `you` is for people with curl.
TLS_NAMES=(postgres nats clickhouse keys ingest query edge ui api demo you)

make_certificates() {
  [ -z "$tls" ] || "$here/../certify" "$state/tls" "${TLS_NAMES[@]}" || die "the certificates cannot be made"
}

# url PART: where it is.
url() {
  printf 'http%s://127.0.0.1:%d' "${tls:+s}" "$(port "$1")"
}

# identity NAME: sets the array of the settings that say who a part is.
identity() {
  identity=()
  [ -n "$tls" ] || return 0
  identity=(KEYMETER_IDENTITY_CERT_FILE="$state/tls/$1.pem" KEYMETER_IDENTITY_KEY_FILE="$state/tls/$1.key"
    KEYMETER_IDENTITY_CA_FILE="$state/tls/ca.pem")
}

# public SERVICE: sets the array of the settings for those who need no certificate of their own: browsers, and callers of
# the API.
public() {
  local prefix=KEYMETER_${1^^}_TLS
  public=()
  [ -z "$tls" ] || public=("${prefix}_CERT_FILE=$state/tls/$1.pem" "${prefix}_KEY_FILE=$state/tls/$1.key")
}

# nats_tls [MORE]: the block of a configuration for connections that show a certificate.
nats_tls() {
  [ -z "$tls" ] || printf 'tls { cert_file: "%s", key_file: "%s", ca_file: "%s", verify: true }\n' \
    "$state/tls/nats.pem" "$state/tls/nats.key" "$state/tls/ca.pem"
}

# postgres_tls: sets the array of Postgres's arguments. Its files are copies that its user can read. Connections by TCP
# show a certificate and give a password; those of up itself come by a socket that has no file.
postgres_tls() {
  local folder=$state/data/postgres-tls owner=()
  postgres_tls=()
  [ -n "$tls" ] || return 0
  [ "${run_as[0]:-}" != setpriv ] || owner=(--owner=65534 --group=65534)
  install -d -m 700 "${owner[@]}" "$folder"
  install -m 600 "${owner[@]}" "$state/tls/postgres.pem" "$state/tls/postgres.key" "$state/tls/ca.pem" "$folder"
  printf '%s\n' "local all all scram-sha-256" "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca" |
    install -m 600 "${owner[@]}" /dev/stdin "$folder/pg_hba.conf"
  postgres_tls=(-c ssl=on -c "ssl_cert_file=$folder/postgres.pem" -c "ssl_key_file=$folder/postgres.key"
    -c "ssl_ca_file=$folder/ca.pem" -c "hba_file=$folder/pg_hba.conf"
    -c "unix_socket_directories=$(postgres_host)")
}

# Where up itself finds Postgres.
postgres_host() {
  if [ -n "$tls" ]; then printf '@keymeter-%d' "$(port postgres)"; else printf 127.0.0.1; fi
}

# https_ok PORT PATH: as http_ok, over TLS, as ourselves.
https_ok() {
  local answer
  answer=$(printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" |
    timeout 5 openssl s_client -quiet -verify_return_error -connect "127.0.0.1:$1" -CAfile "$state/tls/ca.pem" \
      -cert "$state/tls/you.pem" -key "$state/tls/you.key" 2>/dev/null) || true
  [[ $answer == HTTP/1.?\ 200* ]]
}
