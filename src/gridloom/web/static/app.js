// The first page: devices, their values and alarms, live. All text from devices goes through textContent: nothing they say is markup.
import { listen } from "/static/live.js";

const $ = (id) => document.getElementById(id);
const cards = new Map(); // device id -> its card and rows
let token = "";
let alarmTimer = 0;
let renewed = false; // the session of this page was asked for once more

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Nothing above kilo: a register is read by people who compare it with the display of their meter, digit by digit.
const STEPS = [[1e3, "k"], [1, ""]];
const SCALED = new Set(["W", "Wh", "VA", "VAh", "var", "varh"]);
const inOrder = new Intl.Collator("en", { numeric: true }).compare; // tariff2 before tariff10

function shown(value, unit) {
  if (value === null) return "—";
  if (typeof value !== "number") return String(value); // a state, or something that nobody could read
  if (unit === "1") unit = "";
  if (SCALED.has(unit)) {
    const [step, prefix] = STEPS.find(([size]) => Math.abs(value) >= size * 10) || [1, ""];
    return `${(value / step).toLocaleString("en", { maximumFractionDigits: 3 })} ${prefix}${unit}`;
  }
  return `${value.toLocaleString("en", { maximumFractionDigits: 3 })} ${unit}`.trim();
}

function card(id) {
  let found = cards.get(id);
  if (found) return found;
  const article = element("article");
  const title = element("h3", id);
  const state = element("p");
  const about = element("p");
  const table = element("table");
  const caption = element("caption", "", "skip");
  caption.textContent = `Latest values of ${id}`;
  const body = element("tbody");
  table.append(caption, body);
  article.append(title, state, about, table);
  found = { article, title, state, about, body, rows: new Map() };
  cards.set(id, found);
  const after = [...cards.keys()].sort(inOrder).find((other) => inOrder(other, id) > 0 && cards.get(other).article.parentNode);
  $("list").insertBefore(article, after ? cards.get(after).article : null);
  count();
  return found;
}

function count() {
  $("count").textContent = cards.size ? `(${cards.size})` : "";
  $("empty").hidden = cards.size > 0;
}

function onDevice(device) {
  if (device.removed) {
    const gone = cards.get(device.id);
    if (gone) gone.article.remove();
    cards.delete(device.id);
    count();
    return;
  }
  const found = card(device.id);
  found.title.textContent = device.name || device.id;
  found.state.textContent = device.online ? "● online" : `○ offline${device.reason ? `: ${device.reason}` : ""}`;
  found.state.className = device.online ? "good" : "bad";
  found.about.textContent = [device.name ? device.id : "", device.kind, device.vendor || "", device.model || "", device.admission === "pending" ? "waits for approval" : ""]
    .filter(Boolean).join(" · ");
}

function onReading(message) {
  const found = card(message.device);
  for (const one of message.readings) {
    const label = [one.measurand, one.phase, one.tariff, one.location].filter(Boolean).join(" · ");
    let row = found.rows.get(label);
    if (!row) {
      const line = element("tr");
      const head = element("th", label);
      head.scope = "row";
      row = element("td");
      line.append(head, row);
      found.rows.set(label, row);
      const after = [...found.rows.keys()].sort(inOrder).find((other) => inOrder(other, label) > 0 && found.rows.get(other).parentNode);
      found.body.insertBefore(line, after ? found.rows.get(after).parentNode : null);
    }
    row.textContent = shown(one.value, one.unit);
    row.title = message.time;
  }
}

async function loadAlarms() {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch("/api/v1/alarms?limit=100", { headers, credentials: "same-origin", cache: "no-store" });
  if (!answer.ok) return;
  const { items } = await answer.json();
  $("alarms").hidden = items.length === 0;
  $("alarm-list").replaceChildren(...items.map((alarm) => {
    const line = element("li", "", alarm.severity === "warning" ? "warn" : "bad");
    line.textContent = `${alarm.severity}: ${alarm.device} · ${alarm.kind}${alarm.subject ? ` (${alarm.subject})` : ""} since ${alarm.raised}` +
      `${alarm.message ? ` — ${alarm.message}` : ""}${alarm.acknowledged ? " · acknowledged" : ""}`;
    return line;
  }));
}

function alarmsSoon() {
  clearTimeout(alarmTimer);
  alarmTimer = setTimeout(() => loadAlarms().catch(() => {}), 300);
}

function heard(event, data) {
  const message = JSON.parse(data);
  if (event === "device") onDevice(message);
  else if (event === "reading") onReading(message);
  else if (event === "event" && message.state !== "occurred") alarmsSoon();
}

function changed(state, detail) {
  const link = $("link");
  if (state === "live") {
    link.textContent = "Live";
    link.className = "state good";
    renewed = false;
    $("signin").hidden = true;
    count();
    alarmsSoon();
  } else if (state === "refused" && !token && !renewed) {
    renewed = true; // the hub was restarted: loading the page again gives this machine's browser a new session, if it may have one
    fetch("/", { cache: "no-store" }).then(start, start);
  } else if (state === "refused") {
    link.textContent = "Not signed in";
    link.className = "state bad";
    $("signin").hidden = false;
    $("signin-error").textContent = token ? detail : "";
    $("token").focus();
  } else {
    link.textContent = `The stream is lost (${detail}); trying again. Values below are old.`;
    link.className = "state bad";
  }
}

function start() {
  listen("/api/v1/stream?current=true&type=device&type=reading&type=event", { token, heard, changed });
}

$("token-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  start();
});

start();
