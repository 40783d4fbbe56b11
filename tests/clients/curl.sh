#!/usr/bin/env bash
# Makes calls with curl, as the customers' page shows them. Each line of input is a method, a URL, an Authorization
# header and a body, parted by tabs, "-" for none; each line of output a status, a tab and the answer's body.
set -euo pipefail
while IFS=$'\t' read -r method url authorization body; do
  options=(--silent --show-error --noproxy '*' --max-time 20 --cacert "$CA_FILE" --request "$method")
  [ "$authorization" = - ] || options+=(--header "Authorization: $authorization")
  [ "$body" = - ] || options+=(--header "Content-Type: application/json" --data "$body")
  answer=$(curl "${options[@]}" --write-out $'\n%{http_code}' "$url")
  printf '%s\t%s\n' "${answer##*$'\n'}" "$(tr -d '\n' <<<"${answer%$'\n'*}")"
done
