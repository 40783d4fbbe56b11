// Makes calls with fetch, as the customers' page shows them; input and output are those of curl.sh. The demo's
// certificate is trusted by NODE_EXTRA_CA_CERTS.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  const [method, url, authorization, body] = line.split("\t");
  const headers = {};
  if (authorization !== "-") headers.Authorization = authorization;
  if (body !== "-") headers["Content-Type"] = "application/json";
  const res = await fetch(url, { method, headers, body: body === "-" ? undefined : body });
  const text = await res.text();
  console.log(`${res.status}\t${text.replaceAll("\n", "")}`);
}
