// What pages cannot do without a script: copying, watching decisions as they are made, and counting down.
"use strict";

// Copying: a button with the id of what it copies.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent.trim();
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = before; }, 2000);
  });
}

// Watching: rows are put together of text alone, so that nothing in a decision can become markup.
for (const table of document.querySelectorAll("table[data-live]")) {
  const button = document.getElementById("live-button");
  const state = document.getElementById("live-state");
  const body = table.tBodies[0];
  const most = 200;
  let source = null;
  const stop = (why) => {
    source?.close();
    source = null;
    button.textContent = "Watch live";
    button.setAttribute("aria-pressed", "false");
    state.textContent = why;
  };
  const cell = (label, ...parts) => {
    const td = document.createElement("td");
    td.dataset.label = label;
    const holder = document.createElement("span");
    holder.append(...parts);
    td.append(holder);
    return td;
  };
  const element = (name, text, set = {}) => Object.assign(document.createElement(name), { textContent: text, ...set });
  const badge = { allow: "good", unauthenticated: "warn", forbidden: "bad" };
  const show = (decision) => {
    const row = document.createElement("tr");
    row.className = "arrived";
    const time = element("time", new Date(decision.time).toISOString().slice(11, 19), { dateTime: decision.time, title: decision.time });
    const key = decision.key ? [element("a", decision.key, { href: `/keys/${encodeURIComponent(decision.key)}`, className: "mono" })] : ["none"];
    const path = decision.path ?? decision.stated_path ?? "";
    row.append(
      cell("When", element("a", "", { href: `/decisions/${encodeURIComponent(decision.id)}` })),
      cell("Call", element("code", `${decision.method ?? ""} ${path}`.trim() || "not stated")),
      cell("Verdict", element("span", decision.outcome, { className: `badge ${badge[decision.outcome] ?? ""}` })),
      cell("Reason", element("code", decision.reason)),
      cell("Key", ...key),
      cell("From", decision.address ?? ""),
      cell("Policy", element("code", decision.policies.join(", "))),
    );
    row.querySelector("a").append(time);
    body.prepend(row);
    while (body.rows.length > most) body.rows[body.rows.length - 1].remove();
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    if (source) return stop("");
    source = new EventSource(table.dataset.live);
    button.textContent = "Stop";
    button.setAttribute("aria-pressed", "true");
    state.textContent = "Watching: new decisions appear on top.";
    source.addEventListener("decision", (event) => show(JSON.parse(event.data)));
    source.addEventListener("dropped", (event) => {
      state.textContent = `Watching; ${JSON.parse(event.data).count} came too fast to be shown.`;
    });
    source.addEventListener("error", () => {
      if (source?.readyState === EventSource.CLOSED) stop("The connection ended. Load the page again to go on.");
    });
  });
}

// Counting down to a moment.
for (const place of document.querySelectorAll("[data-until]")) {
  const until = Date.parse(place.dataset.until);
  const tell = () => {
    const left = Math.max(0, Math.round((until - Date.now()) / 1000));
    const parts = [Math.floor(left / 86400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60, left % 60];
    const names = ["d", "h", "min", "s"];
    const first = parts.findIndex((part) => part > 0);
    place.textContent = first < 0 ? "now" : "in " + parts.slice(first, first + 2).map((part, at) => `${part} ${names[first + at]}`).join(" ");
    if (left > 0) setTimeout(tell, 1000);
  };
  tell();
}
