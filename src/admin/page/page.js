// The admin page. Everything that is shown came from outside (paths, subjects, names): it is set as text, never as markup.

const SHOWN_TOKENS = 200;
const CHART_ROWS = 40;
const WINDOW_SECONDS = 60;

const $ = (id) => document.getElementById(id);

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
};

const svg = (name, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};

// --- talking to the admin API

const api = async (method, path, body) => {
  const headers = method === "GET" ? {} : { "X-Bearerd-Admin": "1" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  const told = text && answer.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : null;
  if (answer.status === 401 && path !== "/api/login") {
    logIn();
    throw new Error("log in first");
  }
  if (!answer.ok && answer.status !== 422) throw new Error(told?.detail ?? `${answer.status} ${answer.statusText}`);
  return told;
};

let toastTimer;
const tell = (text) => {
  $("told").textContent = text;
  $("told").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("told").hidden = true; }, 6000);
};

const attempt = async (work) => {
  try {
    return await work();
  } catch (error) {
    tell(error.message);
    return null;
  }
};

// --- words and figures

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

const span = (seconds) => {
  const size = Math.abs(seconds);
  if (size < 90) return `${Math.round(size)} s`;
  if (size < 90 * 60) return `${Math.round(size / 60)} min`;
  if (size < 36 * 3600) return `${small.format(size / 3600)} h`;
  return `${Math.round(size / 86400)} d`;
};

const moment = (at, now) => {
  if (at === null || at === undefined) return element("span", { class: "faint" }, "\u2013");
  const date = new Date(at * 1000);
  const words = at > now ? `in ${span(at - now)}` : `${span(now - at)} ago`;
  return element("time", { datetime: date.toISOString(), title: date.toLocaleString() }, words);
};

const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "\u2013";
  return seconds < 0.001 ? `${Math.round(seconds * 1e6)} \u00b5s` : seconds < 1 ? `${small.format(seconds * 1e3)} ms` : `${small.format(seconds)} s`;
};

const percent = (part, whole) => (whole ? `${small.format((100 * part) / whole)} %` : "\u2013");
const total = (counts) => Object.values(counts).reduce((sum, value) => sum + value, 0);

// --- tables that keep their rows, so that focus and selection survive a refresh

const rows = (body, items, key, cells) => {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let row = known.get(name);
    known.delete(name);
    if (!row) {
      row = element("tr");
      row.dataset.key = name;
    }
    cells(item).forEach((cell, index) => {
      const old = row.children[index];
      if (!old) row.append(cell);
      else if (!cell.dataset.fixed && (old.textContent !== cell.textContent || old.className !== cell.className)) old.replaceWith(cell);
    });
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  known.forEach((row) => row.remove());
};

const cell = (content, kind = "") => element("td", { class: kind || null }, content ?? "\u2013");
const head = (content) => element("th", { scope: "row" }, content);

// --- at a glance

const past = [];
let described = [];

const rate = (now, before, read) => (before && now.at > before.at ? (read(now) - read(before)) / (now.at - before.at) : null);
const answered = (overview) => Object.values(overview.summary.routes).reduce((sum, route) => sum + total(route.answers), 0);
const refusedOf = (overview) =>
  Object.values(overview.summary.routes).reduce((sum, route) => sum + (route.decisions.denied ?? 0) + (route.decisions.error ?? 0), 0);

const glance = (overview) => {
  past.push(overview);
  while (past.length > 1 && overview.at - past[0].at > WINDOW_SECONDS) past.shift();
  const before = past.length > 1 ? past[0] : null;
  const { summary } = overview;
  const { hit, miss, negative, expired, entries } = summary.cache;
  const perSecond = rate(overview, before, answered);
  const refusedPerMinute = rate(overview, before, refusedOf);
  const tiles = [
    ["Requests a second", perSecond === null ? "\u2013" : small.format(perSecond)],
    ["Served so far", count.format(answered(overview))],
    ["In flight", count.format(summary.in_flight)],
    ["Hit ratio", percent(hit, hit + miss + negative + expired)],
    ["Live tokens", count.format(entries)],
    ["Refused a minute", refusedPerMinute === null ? "\u2013" : small.format(refusedPerMinute * 60)],
    ["Connections", count.format(summary.connections)],
    ["Revocations pending", count.format(summary.revocations_pending)],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  $("version").textContent = overview.version;
  $("ready").textContent = overview.ready ? "ready" : "not ready";
  $("ready").className = `mark ${overview.ready ? "good" : "bad"}`;

  const names = [...described.map((route) => route.name), ...Object.keys(summary.routes)];
  const shown = [...new Set(names)].map((name) => ({
    name,
    route: described.find((route) => route.name === name),
    figures: summary.routes[name] ?? { answers: {}, decisions: {}, duration: {} },
  }));
  rows($("routes").tBodies[0], shown.filter(({ name, route }) => route || total(summary.routes[name].answers)), ({ name }) => name, ({ name, route, figures }) => {
    const { decisions, answers } = figures;
    const takes = route ? `${route.methods.join(" ")} ${route.hosts.join(" ")}${route.path}`.trim() : "no route";
    const shadow = route && !route.enforced ? ` (shadow; would deny ${count.format(decisions.would_deny ?? 0)})` : "";
    return [
      head(name || "(none)"), cell(takes, "mono"), cell(route ? route.served_by + shadow : "refused"),
      cell(count.format(decisions.allowed ?? 0), "number"),
      cell(count.format(decisions.denied ?? 0), decisions.denied ? "number warn" : "number"),
      cell(count.format(decisions.error ?? 0), decisions.error ? "number bad" : "number"),
      cell(count.format(decisions.public ?? 0), "number"),
      cell(Object.entries(answers).map(([kind, value]) => `${kind} ${count.format(value)}`).join(", ") || null),
      cell(duration(figures.duration.p50_seconds), "number"), cell(duration(figures.duration.p99_seconds), "number"),
    ];
  });

  rows($("services").tBodies[0], Object.entries(summary.token_services), ([name]) => name, ([name, service]) => {
    const calls = Object.entries(service.calls).map(
      ([operation, outcomes]) => `${operation}: ${Object.entries(outcomes).map(([outcome, value]) => `${count.format(value)} ${outcome}`).join(", ")}`,
    );
    return [
      head(name), cell(service.breaker_open ? "failing: breaker open" : "fine", service.breaker_open ? "bad" : "good"),
      cell(calls.join("; ") || null, "wide"), cell(duration(service.create.p50_seconds), "number"), cell(duration(service.create.p99_seconds), "number"),
    ];
  });
};

// --- tokens

let tokens = [];
let lists = 0;
let sort = { by: "expires", descending: false };
let clock = 0;

const chart = () => {
  const area = $("chart");
  const shown = tokens.slice(0, CHART_ROWS);
  $("timeline-empty").hidden = shown.length > 0;
  area.toggleAttribute("hidden", shown.length === 0);
  if (!shown.length) return area.replaceChildren();
  const width = Math.max(320, area.clientWidth || 800);
  const label = Math.min(180, width * 0.3);
  const height = shown.length * 20 + 30;
  area.setAttribute("viewBox", `0 0 ${width} ${height}`);
  area.setAttribute("height", height);
  const from = Math.min(...shown.map((token) => token.minted), clock);
  const to = Math.max(...shown.map((token) => token.expires), clock + 1);
  const x = (at) => label + ((width - label - 10) * (at - from)) / (to - from);
  const parts = [];
  shown.forEach((token, row) => {
    const y = 6 + row * 20;
    const name = token.subject ?? token.id.slice(0, 8);
    const text = svg("text", { x: 6, y: y + 11 }, name.length > label / 7 ? `${name.slice(0, Math.floor(label / 7) - 1)}\u2026` : name);
    const bar = svg("rect", { class: "life", x: x(token.minted), y, width: Math.max(2, x(token.expires) - x(token.minted)), height: 13, rx: 2 });
    bar.append(svg("title", {}, `${name} (${token.route}): ends ${new Date(token.expires * 1000).toLocaleString()}`));
    parts.push(text, bar);
    if (token.renews !== null && token.renews <= to) {
      parts.push(svg("line", { class: "renewal", x1: x(token.renews), x2: x(token.renews), y1: y - 2, y2: y + 15 }));
    }
  });
  const bottom = height - 22;
  parts.push(svg("line", { class: "now", x1: x(clock), x2: x(clock), y1: 2, y2: bottom }));
  const time = (at, anchor) => svg("text", { x: x(at), y: height - 7, "text-anchor": anchor }, new Date(at * 1000).toLocaleTimeString());
  parts.push(time(from, "start"), time(to, "end"));
  area.replaceChildren(...parts);
};

const act = (token, revoke) => async () => {
  const what = revoke ? "Revoke" : "Invalidate";
  const name = token.subject ?? token.id.slice(0, 8);
  const text = revoke
    ? `The token of ${name} on route ${token.route} is out of use at once, and the token service is told. Whoever shares it gets a new one.`
    : `The next request of ${name} on route ${token.route} mints a new token. The old one stays good elsewhere until it ends.`;
  if (!(await confirmed(`${what} this token?`, text, what))) return;
  await attempt(async () => {
    if (revoke) await api("DELETE", `/api/tokens/${encodeURIComponent(token.id)}`);
    else await api("POST", "/api/purge", { id: token.id });
    tell(revoke ? `Revoked the token of ${name}.` : `Invalidated the token of ${name}.`);
    await list();
  });
};

const list = async () => {
  const wanted = new URLSearchParams({ q: $("q").value, sort: sort.by, descending: sort.descending, limit: SHOWN_TOKENS });
  lists += 1;
  const own = lists;
  const found = await api("GET", `/api/tokens?${wanted}`);
  // An answer that was overtaken by a later question.
  if (own !== lists) return;
  tokens = found;
  $("found").textContent = tokens.length === SHOWN_TOKENS ? `the first ${SHOWN_TOKENS}` : `${tokens.length} found`;
  rows($("list").tBodies[0], tokens, (token) => token.id, (token) => {
    const name = token.subject ?? token.id.slice(0, 8);
    const actions = element("td", {},
      element("button", { type: "button", "aria-label": `Invalidate the token of ${name}`, onclick: act(token, false) }, "Invalidate"),
      element("button", { type: "button", class: "danger", "aria-label": `Revoke the token of ${name}`, onclick: act(token, true) }, "Revoke"));
    actions.dataset.fixed = "1";
    return [
      cell(token.route), cell(token.subject, "mono"), cell(token.service), cell(moment(token.minted, clock)), cell(moment(token.renews, clock)),
      cell(moment(token.expires, clock), token.expires - clock < 60 ? "warn" : ""), cell(count.format(token.uses), "number"),
      cell(token.id.slice(0, 8), "mono"), actions,
    ];
  });
  chart();
};

// --- refusals

const refusals = (refused) => {
  $("no-refusals").hidden = refused.length > 0;
  $("refused").replaceChildren(...refused.map((one) => element("li", {},
    element("p", {}, element("strong", {}, `${one.status} ${one.reason}`), ` ${one.method} `, element("code", {}, one.path),
      ` on ${one.route ? `route ${one.route}` : "no route"} from ${one.peer ?? "?"}, `, moment(one.at, clock)),
    element("p", {}, one.advice),
    element("p", { class: "faint mono" }, [one.cause, `request id ${one.request_id}`].filter(Boolean).join(" \u00b7 ")))));
};

// --- configuration

const flattened = function* (value, path = "") {
  if (Array.isArray(value)) for (const [index, item] of value.entries()) yield* flattened(item, `${path}[${index}]`);
  else if (value !== null && typeof value === "object") for (const [key, item] of Object.entries(value)) yield* flattened(item, path ? `${path}.${key}` : key);
  else yield [path, value];
};

const reload = (last) => {
  const told = !last ? "Not reloaded since the start." : last.outcome === "reloaded" ? "Reloaded " : "The last reload was refused, the configuration before goes on: ";
  $("reloaded").replaceChildren(told, ...(last ? [moment(last.at, clock)] : []),
    ...(last?.needs_restart?.length ? [`; needs a restart: ${last.needs_restart.join(", ")}`] : []));
  $("reloaded").className = last?.outcome === "refused" ? "bad" : "";
  $("mistakes").hidden = last?.outcome !== "refused";
  $("mistakes").textContent = last?.error ?? "";
};

const configuration = async () => {
  const [{ configuration: shown }, routes] = await Promise.all([api("GET", "/api/config"), api("GET", "/api/routes")]);
  described = routes;
  rows($("values").tBodies[0], [...flattened(shown.values)], ([path]) => path, ([path, value]) => [
    element("th", { scope: "row", class: "mono" }, path), cell(String(value), "mono wide"), cell(shown.origins[path] ?? "default", shown.origins[path] ? "" : "faint"),
  ]);
};

// --- dialogs

const confirmed = (title, text, verb) => new Promise((resolve) => {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = verb;
  const dialog = $("confirm");
  dialog.returnValue = "";
  dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  dialog.showModal();
  $("confirm-no").focus();
});

const logIn = () => {
  if (!$("login").open) $("login").showModal();
  $("token").focus();
};

// --- live

let seen = "";
let reloadedAt = 0;

const take = async (overview) => {
  clock = overview.at;
  glance(overview);
  refusals(overview.refusals);
  reload(overview.last_reload);
  if (overview.last_reload && overview.last_reload.at !== reloadedAt) {
    reloadedAt = overview.last_reload.at;
    await configuration();
  }
  // The tokens again where something became of them, else every five seconds for their uses.
  const { entries, miss } = overview.summary.cache;
  const now = JSON.stringify([entries, miss, Object.values(overview.summary.token_services).map((service) => service.calls), Math.floor(clock / 5)]);
  if (now !== seen) {
    seen = now;
    await list();
  }
  chart();
};

let stream;
const listen = () => {
  stream?.close();
  stream = new EventSource("/api/events");
  stream.addEventListener("open", () => { $("live").textContent = "live"; });
  stream.addEventListener("overview", (event) => attempt(() => take(JSON.parse(event.data))));
  stream.addEventListener("error", () => {
    $("live").textContent = "no connection, trying again";
    $("ready").textContent = "unknown";
    $("ready").className = "mark warn";
    // A stream that was refused is not tried again by the browser.
    if (stream.readyState === EventSource.CLOSED) setTimeout(begin, 3000);
  });
};

const begin = async () => {
  try {
    const login = await api("GET", "/api/login");
    $("logout").hidden = !login.logged_in;
    if (login.needed && !login.logged_in) return logIn();
    await configuration();
    await take(await api("GET", "/api/overview"));
    listen();
  } catch (error) {
    if (!$("login").open) {
      $("live").textContent = error.message;
      setTimeout(begin, 3000);
    }
  }
};

// --- what people do

$("search").addEventListener("submit", (event) => event.preventDefault());
$("q").addEventListener("input", () => attempt(list));
for (const column of document.querySelectorAll("[data-sort]")) {
  column.querySelector("button").addEventListener("click", () => {
    const by = column.dataset.sort;
    sort = { by, descending: sort.by === by && !sort.descending };
    for (const other of document.querySelectorAll("[data-sort]")) other.removeAttribute("aria-sort");
    column.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
    attempt(list);
  });
}
$("reload").addEventListener("click", () => attempt(async () => {
  const outcome = await api("POST", "/api/reload");
  tell(outcome.outcome === "reloaded" ? "Reloaded." : "Refused: the file has mistakes.");
  await take(await api("GET", "/api/overview"));
}));
$("confirm-no").addEventListener("click", () => $("confirm").close("no"));
$("confirm-yes").addEventListener("click", () => $("confirm").close("yes"));
const enter = async () => {
  $("login-error").textContent = "";
  try {
    await api("POST", "/api/login", { token: $("token").value });
    $("token").value = "";
    $("login").close();
    $("logout").hidden = false;
    begin();
  } catch (error) {
    $("login-error").textContent = error.message;
  }
};
$("login-go").addEventListener("click", enter);
$("token").addEventListener("keydown", (event) => { if (event.key === "Enter") enter(); });
$("login").addEventListener("cancel", (event) => event.preventDefault());
$("logout").addEventListener("click", () => attempt(async () => {
  await api("POST", "/api/logout");
  stream?.close();
  location.reload();
}));
addEventListener("resize", chart);

begin();
