"use strict";
// What the picker says becomes text, never markup: elements are made here, and their text is set.

const $ = (id) => document.getElementById(id);
const TREND = 60;

/** An element with this text and these classes. */
function element(name, text, classes) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function row(cells) {
  const made = element("tr");
  for (const cell of cells) made.append(cell);
  return made;
}

const cell = (text, classes) => element("td", text, classes);
const number = (value) => cell(value, "n");

function span(ms) {
  if (ms === undefined || ms === null || ms < 0) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60000)} min`;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
}

const percent = (value) => (value < 0 ? "–" : `${value} %`);

// ---- endpoints ----------------------------------------------------------------------------------------------------

/** Columns: name, what it sorts by, what it shows, and whether it is a number. */
const COLUMNS = [
  ["Endpoint", (it) => it.name],
  ["Role", (it) => it.role],
  ["State", (it) => it.state],
  ["Age", (it) => it.age, (it) => span(it.age)],
  ["Queue", (it) => it.waiting],
  ["Running", (it) => it.running],
  ["KV usage", (it) => it.kv, (it) => `${(it.kv / 10).toFixed(1)} %`],
  ["In flight", (it) => it.flight],
  ["Share", (it) => it.share, (it) => `${it.share.toFixed(1)} %`],
  ["Predicted hits", (it) => it.predicted, (it) => percent(it.predicted)],
  ["Observed hits", (it) => it.observed, (it) => percent(it.observed)],
];
const NUMBERS_FROM = 3;

const view = { endpoints: [], column: 0, falling: false, page: 0 };

function endpointHead() {
  COLUMNS.forEach(([title], index) => {
    const head = element("th", null, index >= NUMBERS_FROM ? "n" : "");
    head.scope = "col";
    const button = element("button", title);
    button.type = "button";
    button.addEventListener("click", () => {
      view.falling = view.column === index ? !view.falling : index >= NUMBERS_FROM;
      view.column = index;
      view.page = 0;
      showEndpoints();
    });
    head.append(button);
    $("endpoint-head").append(head);
  });
  const trend = element("th", "In flight, last minute");
  trend.scope = "col";
  $("endpoint-head").append(trend);
}

function takePool(pool) {
  $("pool").textContent = `${pool.namespace}/${pool.name}`;
  document.title = `${pool.name} – Pointsman`;
  const trends = new Map(view.endpoints.map((it) => [it.name, it.trend]));
  view.endpoints = pool.endpoints.map(([name, address, role, pod, rank]) => ({
    name, address, role, pod, rank, state: "never", age: -1, waiting: 0, running: 0, kv: 0, flight: 0, count: 0,
    share: 0, predicted: -1, observed: -1, trend: trends.get(name) || [],
  }));
}

function takeRows(rows, minute) {
  rows.forEach((figures, place) => {
    const it = view.endpoints[place];
    if (!it) return;
    [it.state, it.age, it.waiting, it.running, it.kv, it.flight, it.count, it.predicted, it.observed] = figures;
    it.share = minute > 0 ? (it.count * 100) / minute : 0;
    it.trend.push(it.flight);
    if (it.trend.length > TREND) it.trend.shift();
  });
}

function chosen() {
  const wanted = $("filter").value.trim().toLowerCase();
  const fits = (it) => !wanted || [it.name, it.address, it.role, it.state].some((text) => text.toLowerCase().includes(wanted));
  const key = COLUMNS[view.column][1];
  const way = view.falling ? -1 : 1;
  return view.endpoints.filter(fits).sort((a, b) => {
    const [one, other] = [key(a), key(b)];
    const order = typeof one === "string" ? one.localeCompare(other, undefined, { numeric: true }) : one - other;
    return order * way || a.name.localeCompare(b.name, undefined, { numeric: true });
  });
}

function trend(values) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", "0 0 90 22");
  drawing.setAttribute("role", "img");
  const most = Math.max(1, ...values);
  drawing.setAttribute("aria-label", `up to ${Math.max(0, ...values)} in flight`);
  const line = document.createElementNS(space, "polyline");
  const step = 90 / (TREND - 1);
  const start = 90 - step * (values.length - 1);
  line.setAttribute("points", values.map((it, at) => `${(start + at * step).toFixed(1)},${(20 - (it / most) * 18).toFixed(1)}`).join(" "));
  drawing.append(line);
  return drawing;
}

function showEndpoints() {
  const all = chosen();
  const size = Number($("size").value);
  const pages = Math.max(1, Math.ceil(all.length / size));
  view.page = Math.min(view.page, pages - 1);
  const from = view.page * size;
  const rows = all.slice(from, from + size).map((it) => {
    const name = cell(null, "name");
    name.title = `${it.name} ${it.address}`;
    name.append(it.name, element("small", it.address));
    const cells = [name, cell(it.role), cell(it.state, it.state)];
    for (const [, key, shown] of COLUMNS.slice(NUMBERS_FROM)) cells.push(number(shown ? shown(it) : key(it)));
    const last = cell();
    last.append(trend(it.trend));
    cells.push(last);
    return row(cells);
  });
  $("endpoint-rows").replaceChildren(...rows);
  [...$("endpoint-head").children].forEach((head, index) => {
    if (index === view.column) head.setAttribute("aria-sort", view.falling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  const place = all.length === 0 ? "none" : `${from + 1} to ${from + rows.length} of ${all.length}`;
  // What did not change is not said again to those who listen.
  if ($("place").textContent !== place) $("place").textContent = place;
  $("previous").disabled = view.page === 0;
  $("next").disabled = view.page >= pages - 1;
}

// ---- everything else that comes every second ----------------------------------------------------------------------

function showTotals(figures) {
  const sum = (key) => view.endpoints.reduce((total, it) => total + it[key], 0);
  const waits = figures.queues ? figures.queues.bands.reduce((total, band) => total + band[1], 0) : 0;
  $("rate").textContent = figures.second;
  $("minute").textContent = figures.minute;
  $("flight").textContent = sum("flight");
  $("waiting").textContent = waits;
  $("refused").textContent = figures.refusals.reduce((total, refusal) => total + refusal[3], 0);
  $("ready").textContent = `${view.endpoints.filter((it) => it.state === "ready").length} of ${view.endpoints.length}`;
}

let warned = "";
function showWarnings(warnings) {
  const text = JSON.stringify(warnings);
  if (text === warned) return;
  warned = text;
  $("warning-list").replaceChildren(...warnings.map((it) => element("li", it.text, it.grave ? "grave" : "")));
  $("no-warnings").hidden = warnings.length > 0;
}

function showQueues(queues) {
  $("no-queues").hidden = Boolean(queues);
  $("band-part").hidden = !queues;
  if (!queues) return;
  const oldest = (priority) => Math.max(-1, ...queues.flows.filter((flow) => flow[0] === priority).map((flow) => flow[2]));
  $("band-rows").replaceChildren(...queues.bands.map(([priority, requests, used, most]) =>
    row([cell(priority), number(requests), number(most), number(bytes(used)), number(span(oldest(priority)))])));
  const flows = queues.flows.map(([priority, id, wait]) => row([cell(priority), cell(id || "(all)", "name"), number(span(wait))]));
  if (flows.length === 0) {
    const none = cell("Nothing waits.");
    none.colSpan = 3;
    flows.push(row([none]));
  }
  $("flow-rows").replaceChildren(...flows);
}

function showRefusals(refusals) {
  $("no-refusals").hidden = refusals.length > 0;
  $("refusal-rows").replaceChildren(...refusals.map(([reason, code, all, minute]) =>
    row([cell(reason), number(code), number(minute), number(all)])));
}

let held = false;
let listed = "";
function showDecisions(decisions) {
  if (!decisions) {
    $("decision-note").textContent = "No records of decisions are kept; --decision-records sets how many bytes of them are.";
    return;
  }
  const some = decisions.one_in > 1 ? `, one of ${decisions.one_in} requests beside slow and refused ones` : "";
  $("decision-note").textContent = `${decisions.kept} records are kept${some}.`;
  // A list that is read, or under somebody's pointer or keys, stays as it is.
  const used = $("decision-rows").contains(document.activeElement) || $("decision-rows").matches(":hover");
  const text = JSON.stringify(decisions.rows);
  if (held || text === listed || (used && $("decision-rows").children.length > 0)) return;
  listed = text;
  $("decision-rows").replaceChildren(...decisions.rows.map(decision));
}

function decision(it) {
  const name = cell();
  const open = element("button", it.id || `@${it.sequence}`, "link");
  open.type = "button";
  open.addEventListener("click", () => openDecision(it.sequence));
  name.append(open);
  const outcome = it.reason || it.outcome.state;
  const figure = (value) => (value === undefined ? "–" : value.toFixed(3));
  return row([
    name,
    cell(it.time.slice(11, 19)),
    cell(it.model === it.target_model ? it.model : `${it.model} → ${it.target_model}`, "name"),
    cell(it.fairness_id, "name"),
    number(it.prompt_tokens),
    cell(it.endpoint || "–", "name"),
    number(figure(it.score)),
    number(figure(it.margin)),
    number(span(it.queue_ms)),
    cell(it.outcome.status ? `${outcome} ${it.outcome.status}` : outcome, it.reason ? "bad" : ""),
  ]);
}

// ---- a record -----------------------------------------------------------------------------------------------------

async function answer(response) {
  const text = await response.text();
  if (!response.ok) throw new Error(text.trim() || `status ${response.status}`);
  return JSON.parse(text);
}

async function openDecision(sequence) {
  try {
    const record = await answer(await fetch(`debug/decisions/@${sequence}?words=true`));
    showRecord(record, `Decision ${record.id}`);
  } catch (error) {
    showRecord({ words: `The record is gone: ${error.message}` }, "Decision");
  }
}

function showRecord(record, title) {
  const { words, ...rest } = record;
  const facts = [
    ["Model", record.model],
    ["Served as", record.target_model],
    ["Priority", record.priority],
    ["Fairness id", record.fairness_id],
    ["Prompt", record.prompt && `${record.prompt.tokens} tokens${record.prompt.exact ? "" : ", estimated"}`],
    ["Endpoint", record.endpoint || (record.refusal && `refused: ${record.refusal.reason}`)],
    ["Shadow", record.shadow && (record.shadow.endpoint || `none: ${record.shadow.refusal}`)],
    ["Waited", record.wait && span(record.wait.queue_ms)],
    ["Would wait", record.would_wait === undefined ? undefined : String(record.would_wait)],
    ["Cached tokens", record.cached_tokens],
    ["Outcome", record.outcome && record.outcome.state],
  ];
  const list = [];
  for (const [name, value] of facts) {
    if (value === undefined || value === null || value === "") continue;
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    list.push(pair);
  }
  $("record-title").textContent = title;
  $("record-facts").replaceChildren(...list);
  $("record-why").textContent = words || "";
  $("record-json").textContent = JSON.stringify(rest, null, 2);
  if (!$("record").open) $("record").showModal();
}

// ---- dry run ------------------------------------------------------------------------------------------------------

async function dryRun(event) {
  event.preventDefault();
  $("dry-error").textContent = "";
  const headers = {};
  for (const line of $("dry-headers").value.split("\n")) {
    const colon = line.indexOf(":", 1);
    if (colon > 0) headers[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
  }
  const request = { path: $("dry-path").value, headers, body: $("dry-body").value };
  try {
    const response = await fetch("debug/decide?words=true", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(request),
    });
    showRecord(await answer(response), "What this request would get now");
  } catch (error) {
    $("dry-error").textContent = error.message;
  }
}

// ---- configuration ------------------------------------------------------------------------------------------------

let generation = -1;
async function showConfiguration(now) {
  if (now === generation) return;
  generation = now;
  try {
    const config = await answer(await fetch("debug/config"));
    $("configuration-note").textContent = `${config.source}, generation ${config.generation}, in force since ${config.since}`;
    $("effective").textContent = config.effective;
    const last = config.last_reload;
    $("reload-part").hidden = !last;
    if (!last) return;
    const lines = last.outcome === "refused" ? last.problems : last.changes;
    $("changes").replaceChildren(element("span", `${last.outcome} at ${last.time}\n`), ...lines.map((line) =>
      element("span", `${line}\n`, last.outcome === "refused" || line.startsWith("- ") ? "went" : "came")));
  } catch (error) {
    $("configuration-note").textContent = `The configuration cannot be shown: ${error.message}`;
    generation = -1;
  }
}

function showShadow(shadow) {
  $("shadow-part").hidden = !shadow;
  if (!shadow) return;
  const state = shadow.active ? "decides beside the running configuration" : "is off";
  const problems = shadow.problems.length ? `: ${shadow.problems.join("; ")}` : "";
  const panics = shadow.panics ? `, ${shadow.panics} panics` : "";
  $("shadow-note").textContent = `${shadow.source} ${state}${panics}${problems}`;
  $("shadow-rows").replaceChildren(...shadow.profiles.map((it) => row([
    cell(it.profile, "name"),
    number(it.compared),
    number(it.agree),
    number(it.agreement === null ? "–" : `${(it.agreement * 100).toFixed(1)} %`),
  ])));
}

// ---- the feed -----------------------------------------------------------------------------------------------------

function live(text, lost) {
  if ($("live").textContent !== text) $("live").textContent = text;
  $("live").classList.toggle("lost", Boolean(lost));
}

function follow() {
  const source = new EventSource("page/feed");
  let latest = 0;
  source.addEventListener("pool", (event) => takePool(JSON.parse(event.data)));
  source.addEventListener("figures", (event) => {
    const figures = JSON.parse(event.data);
    latest = Date.now();
    live("live");
    takeRows(figures.rows, figures.minute);
    showTotals(figures);
    showWarnings(figures.warnings);
    showQueues(figures.queues);
    showRefusals(figures.refusals);
    showDecisions(figures.decisions);
    showShadow(figures.shadow);
    // A configuration that was refused leaves the generation as it is.
    const refused = figures.warnings.some((it) => it.text.startsWith("A changed configuration was refused"));
    showConfiguration(`${figures.generation}${refused}`);
    if (!document.hidden) showEndpoints();
  });
  source.addEventListener("error", () => live("the picker does not answer; trying again", true));
  setInterval(() => {
    if (latest && Date.now() - latest > 5000) live("the picker has been silent for some seconds", true);
    // A browser gives up where the answer was no stream: too many look, or the picker restarts.
    if (source.readyState === EventSource.CLOSED) { source.close(); latest = 0; retry(); }
  }, 2000);
  let again = false;
  function retry() {
    if (again) return;
    again = true;
    setTimeout(() => location.reload(), 5000);
  }
}

endpointHead();
$("filter").addEventListener("input", () => { view.page = 0; showEndpoints(); });
$("size").addEventListener("change", () => { view.page = 0; showEndpoints(); });
$("previous").addEventListener("click", () => { view.page -= 1; showEndpoints(); });
$("next").addEventListener("click", () => { view.page += 1; showEndpoints(); });
$("hold").addEventListener("click", () => {
  held = !held;
  $("hold").setAttribute("aria-pressed", String(held));
  $("hold").textContent = held ? "Let this list go on" : "Hold this list";
});
$("dry-form").addEventListener("submit", dryRun);
$("record-close").addEventListener("click", () => $("record").close());
$("dry-body").value = JSON.stringify({ model: "model", messages: [{ role: "user", content: "Hello" }], max_tokens: 16 }, null, 2);
follow();
