// The routes of openapi.json, each with its bodies to change and send.

import { setToken } from "./api.js";
import { button, el, newId } from "./dom.js";
import { dumpJson, parseJson } from "./values.js";

const TOKEN = "tzrec-token";
const byId = (id) => document.getElementById(id);

/** Sends text as it is written and returns the answer as text: large integers stay whole. */
async function send(path, method, body = null) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== null) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body, cache: "no-store" });
  return { status: response.status, text: await response.text() };
}

/** JSON on several lines, where it is short enough for that; else as it came. */
function pretty(text) {
  if (/\d{16}/.test(text)) return text; // JavaScript would change such numbers
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function typeOf(schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  const kinds = [schema.type ?? "any"].flat();
  return kinds.map((kind) => {
    if (kind === "array") return `list of ${typeOf(schema.items ?? {})}`;
    if (kind === "integer" || kind === "number") return schema.format ?? kind;
    return kind;
  }).join(" or ");
}

/** The fields of an object, those of the rows inside of it with a dot. */
function fieldsOf(schema, prefix = "") {
  const inner = schema.type === "array" ? schema.items : schema;
  if (!inner?.properties) return [];
  return Object.entries(inner.properties).flatMap(([name, value]) => {
    const path = prefix + name;
    const below = fieldsOf(value, `${path}${value.type === "array" ? "[]" : ""}.`);
    const needed = (inner.required ?? []).includes(name);
    const type = below.length && value.type === "array" ? "list of objects" : typeOf(value);
    return [{ path, type, needed, text: value.description ?? "" }, ...below];
  });
}

function fieldTable(schema) {
  const head = ["field", "type", "needed", ""].map((name) => el("th", { scope: "col" }, name));
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, fieldsOf(schema).map((field) => el("tr", {},
      el("th", { scope: "row" }, el("code", {}, field.path)),
      el("td", {}, field.type),
      el("td", {}, field.needed ? "yes" : ""),
      el("td", {}, field.text))))));
}

/** What sends a body and shows the answer. */
function trial(path, method, example) {
  const id = newId("body");
  const area = el("textarea", { id, spellcheck: "false" });
  if (example) area.value = pretty(dumpJson(example));
  const answer = el("pre", { role: "status", tabindex: "0", hidden: true });
  const ask = async () => {
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const found = await send(path, method, example ? area.value : null);
      answer.textContent = `${found.status}\n${pretty(found.text)}`;
    } catch {
      answer.textContent = "The server does not answer.";
    }
  };
  return el("div", {},
    example ? el("label", { for: id, class: "soft" }, "Body") : null,
    example ? area : null,
    el("p", { class: "actions" }, button("Send", ask, { class: "primary" })),
    answer);
}

function routeCard(path, method, operation) {
  const content = operation.requestBody?.content["application/json"];
  const verb = method.toUpperCase();
  const parts = [];
  Object.entries(content?.examples ?? {}).forEach(([name, { value }], index) => {
    parts.push(el("h3", {}, `with ${name}`), fieldTable(content.schema.anyOf[index]));
    parts.push(trial(path.slice(1), verb, value));
  });
  if (!content) parts.push(trial(path.slice(1), verb, null));
  const answers = el("table", {}, el("tbody", {},
    Object.entries(operation.responses).map(([code, one]) => el("tr", {},
      el("th", { scope: "row" }, el("code", {}, code)), el("td", {}, one.description)))));
  return el("details", { class: "card route", "data-path": path },
    el("summary", {}, el("span", { class: "verb" }, verb), el("code", {}, path),
      el("span", {}, operation.summary)),
    ...parts, el("h3", {}, "Answers"), answers);
}

async function draw() {
  const { status, text } = await send("openapi.json", "GET");
  byId("token-form").hidden = status !== 401;
  byId("notice").hidden = status === 200 || status === 401;
  if (status !== 200) {
    byId("about").textContent = "";
    byId("notice").textContent = `The server answers ${status}: ${text}`;
    return;
  }
  const found = parseJson(text);
  byId("title").textContent = found.info.title;
  byId("about").textContent = found.info.description;
  byId("routes").replaceChildren(...Object.entries(found.paths).flatMap(
    ([path, methods]) => Object.entries(methods).map(
      ([method, operation]) => routeCard(path, method, operation))));
  byId("routes").querySelector("details").open = true;
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value);
  draw();
});
draw().catch(() => {
  byId("notice").hidden = false;
  byId("notice").textContent = "The server does not answer.";
});
