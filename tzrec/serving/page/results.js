// What the server has answered: scores, generated features, the request as text.

import { bar, button, copyButton, el } from "./dom.js";
import { dumpJson, shellQuote, shortNumber, toText } from "./values.js";
import { hasToken } from "./api.js";

export const FEATURES = "__features__";
const MOST_COMPARED = 12;

/** "3 rows · version x · 4.1 ms" */
export function answerLine(count, noun, answer, milliseconds) {
  const parts = [`${count} ${count === 1 ? noun : `${noun}s`}`];
  if (answer.version) parts.push(`version ${answer.version}`);
  parts.push(`${milliseconds.toFixed(1)} ms there and back`);
  return el("p", { class: "soft", "data-part": "answer-line" }, parts.join(" · "));
}

/**
 * The scores as a table that can be sorted, the best candidate first.
 *
 * `outputs` is name → values, `rows` what varies between the candidates.
 */
export class Scores {
  constructor(outputs, rows, columns) {
    this.rows = rows;
    this.columns = columns.slice(0, 3);
    this.names = Object.keys(outputs).filter((name) => name !== FEATURES);
    this.outputs = outputs;
    this.largest = Object.fromEntries(this.names.map((name) => [name, largestShare(outputs[name])]));
    this.by = this.names.find((name) => name.startsWith("probs") && this.isPlain(name))
      ?? this.names.find((name) => this.isPlain(name)) ?? null;
    this.descending = true;
    this.head = el("tr");
    this.body = el("tbody");
    this.element = el("div", { class: "scroll" }, el("table", { class: "scores" },
      el("caption", { class: "unseen" }, "Scores of the candidates"),
      el("thead", {}, this.head), this.body));
    this.draw();
  }

  isPlain(name) {
    return this.outputs[name].every((value) => ["number", "bigint", "boolean"].includes(typeof value));
  }

  draw() {
    this.head.replaceChildren(
      el("th", { scope: "col" }, "#"),
      ...this.columns.map((column) => el("th", { scope: "col" }, column.name)),
      ...this.names.map((name) => this.headOf(name)));
    const order = this.rows.map((_, index) => index);
    if (this.by !== null) {
      const values = this.outputs[this.by].map(Number);
      order.sort((a, b) => (this.descending ? values[b] - values[a] : values[a] - values[b]) || a - b);
    }
    this.body.replaceChildren(...order.map((index) => el("tr", {},
      el("th", { scope: "row", class: "number" }, index + 1),
      ...this.columns.map((column) => el("td", { class: "cut" },
        toText(this.rows[index][column.name], column.type) || el("i", {}, "missing"))),
      ...this.names.map((name) => this.cell(name, this.outputs[name][index])))));
  }

  headOf(name) {
    if (!this.isPlain(name)) return el("th", { scope: "col" }, name);
    const isBy = name === this.by;
    const mark = isBy ? (this.descending ? " ↓" : " ↑") : "";
    return el("th", {
      scope: "col",
      class: "number",
      "aria-sort": isBy ? (this.descending ? "descending" : "ascending") : null,
    }, button(name + mark, () => {
      this.descending = isBy ? !this.descending : true;
      this.by = name;
      this.draw();
      this.head.querySelector(`[data-sort="${CSS.escape(name)}"]`).focus();
    }, { class: "sort", "data-sort": name, title: `Sort by ${name}` }));
  }

  cell(name, value) {
    if (!this.isPlain(name)) return el("td", { class: "cut", "data-output": name }, dumpJson(value));
    const share = this.largest[name];
    return el("td", { class: "number", "data-output": name },
      share === null ? null : bar(Number(value) / share), shortNumber(value));
  }
}

/** The largest of values that are all within 0 and 1, null if they are not. */
function largestShare(values) {
  const isShare = values.every((value) => typeof value === "number" && value >= 0 && value <= 1);
  const largest = isShare ? Math.max(...values) : 0;
  return largest > 0 ? largest : null;
}

/** Takes `name:1,2 | other:3` apart: [name, values]. */
export function parseFeatures(text) {
  return (text ?? "").split(" | ").filter(Boolean).map((part) => {
    const colon = part.indexOf(":");
    return [part.slice(0, colon), part.slice(colon + 1)];
  });
}

/** Generated features: a row a feature, a column a candidate; where they differ is marked. */
export function featureTable(texts) {
  const shown = texts.slice(0, MOST_COMPARED).map((text) => new Map(parseFeatures(text)));
  const names = [...new Set(shown.flatMap((features) => [...features.keys()]))];
  const lines = names.map((name) => {
    const values = shown.map((features) => features.get(name) ?? "");
    const differs = values.some((value) => value !== values[0]);
    return el("tr", { class: differs ? "differs" : null },
      el("th", { scope: "row" }, name,
        differs ? el("span", { class: "unseen" }, " (differs)") : null),
      ...values.map((value) => el("td", { class: "cut", title: value },
        value || el("i", {}, "none"))));
  });
  return el("section", { "data-part": "features" },
    el("h3", {}, "Generated features"),
    el("p", { class: "soft" }, texts.length > MOST_COMPARED
      ? `What the model was given, of the first ${MOST_COMPARED} candidates.`
      : "What the model was given; coloured where the candidates differ."),
    el("div", { class: "scroll" }, el("table", { class: "features" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "feature"),
        shown.map((_, index) => el("th", { scope: "col" }, `#${index + 1}`)))),
      el("tbody", {}, lines))));
}

/** The request as a command and the answer as JSON, closed at first. */
export function requestDetails(path, text, answer) {
  const address = new URL(path, document.baseURI).href;
  const token = hasToken() ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const command = `curl -s ${address} -H "Content-Type: application/json"${token} \\\n`
    + `  -d ${shellQuote(text)}`;
  const part = (title, content) => el("div", {},
    el("div", { class: "above" }, el("h4", {}, title), copyButton(() => content)),
    el("pre", { tabindex: "0" }, content));
  return el("details", { "data-part": "request" },
    el("summary", {}, "The request, and the answer as it came"),
    part("Request", command), part("Answer", dumpJson(answer)));
}
