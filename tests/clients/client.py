"""Makes calls with requests, as the customers' page shows them; input and output are those of curl.sh."""

import os
import sys

import requests

for line in sys.stdin:
    method, url, authorization, body = line.rstrip("\n").split("\t")
    headers = {}
    if authorization != "-":
        headers["Authorization"] = authorization
    if body != "-":
        headers["Content-Type"] = "application/json"
    resp = requests.request(
        method,
        url,
        headers=headers,
        data=None if body == "-" else body,
        verify=os.environ["CA_FILE"],
        timeout=20,
    )
    print(resp.status_code, resp.text.replace("\n", ""), sep="\t", flush=True)
