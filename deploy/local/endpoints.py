"""Writes .local/endpoints.json for programs and prints the same for a person. Reads addresses from its
environment and secrets from the folder of secrets, so that no secret is on a command line."""

import json
import os
import sys
from pathlib import Path

state = Path(sys.argv[1])


def secret(name):
    return (state / "secrets" / name).read_text().strip()


key_id, key_secret = (state / "run" / "first-key").read_text().split()
endpoints = {name: os.environ[name] for name in ("ui", "edge", "clickhouse", "keys_grpc", "query_grpc", "nats", "postgres")}
endpoints |= {
    "admin": {"email": os.environ["email"], "password": secret("admin-password")},
    "workspace_id": json.loads((state / "run" / "bootstrap.json").read_text())["workspace_id"],
    "service_token": secret("service-token"),
    "key_id": key_id,
    "secret": key_secret,
}
# Whom to believe, and who one is: each link wants a certificate, pages and the edge do not.
authority = ""
if os.environ.get("tls"):
    endpoints |= {"ca_file": str(state / "tls/ca.pem"), "cert_file": str(state / "tls/you.pem"), "key_file": str(state / "tls/you.key")}
    authority = f" --cacert {state / 'tls/ca.pem'}"

# Whole or not at all, and never readable by others.
new = state / "endpoints.json.new"
with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
    json.dump(endpoints, file, indent=2)
    file.write("\n")
new.rename(state / "endpoints.json")

print(
    """
  Pages        {ui}
               sign in as {admin[email]} with the password {admin[password]}
  Edge         {edge}, in front of a demonstrated API
  gRPC         keys {keys_grpc}, usage {query_grpc}
  ClickHouse   {clickhouse}
  NATS         {nats}
  Postgres     {postgres}
  Workspace    {workspace_id}
  Token        {service_token}
  Key          {key_id}

Make a call, then look at the key "Yours to try" on its usage page:

  curl -i{authority} -H 'Authorization: Bearer {secret}' {edge}/v1/orders/1001

All of this is in .local/endpoints.json. Stop: deploy/local/down. Delete: deploy/local/reset.""".format(**endpoints, authority=authority)
)
