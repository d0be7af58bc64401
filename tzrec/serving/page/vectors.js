// The panels of a match model: the best items for a user, and vectors.

import { ask } from "./api.js";
import { Asking } from "./asking.js";
import { bar, copyButton, el, newId, svg } from "./dom.js";
import { Field, Form } from "./fields.js";
import { answerLine, requestDetails } from "./results.js";
import { dumpJson, shortNumber, toText, ValueError } from "./values.js";

/** The best items for one user. */
export class RetrievePanel {
  constructor(task, page) {
    this.task = task;
    this.asking = new Asking(page);
    const onchange = () => this.asking.age();
    this.form = new Form("User", task.columns, task.examples[0] ?? {}, { onchange });
    this.k = new Field({ name: "k", type: "int64", nullable: false }, 10, { onchange });
    this.exclude = new Field({ name: "exclude", type: "string" }, null, { onchange });
    this.exclude.input.placeholder = "ids, with commas between";
    const options = [this.k, ...(task.canExclude ? [this.exclude] : [])];
    this.element = el("form", { onsubmit: (event) => { event.preventDefault(); this.send(); } },
      this.form.element,
      el("fieldset", { class: "card" }, el("legend", {}, "Items"),
        el("div", { class: "grid" }, options.map((field) => field.element))),
      el("p", { class: "actions" }, el("button", { class: "primary" }, "Find items")),
      this.asking.element);
  }

  body() {
    const body = { rows: [this.form.read()], k: this.k.read() };
    const text = this.task.canExclude ? this.exclude.read() : null;
    if (text !== null) body.exclude = [this.idsOf(text)];
    const places = [
      ...this.form.places("rows[0]"), ["k", this.k], ["exclude", this.exclude],
    ];
    return { body, places };
  }

  /** Ids of the index are all whole numbers or all texts. */
  idsOf(text) {
    const words = text.split(",").map((word) => word.trim()).filter(Boolean);
    if (!/int/.test(this.task.idType)) return words;
    return words.map((word) => {
      if (!/^-?\d+$/.test(word)) {
        const error = new ValueError(`${word} is not a whole number, as the ids of the items are`);
        this.exclude.mark(error.message);
        this.exclude.input.focus();
        throw error;
      }
      return BigInt(word);
    });
  }

  async send() {
    await this.asking.run(() => this.body(), async ({ body }) => {
      const text = dumpJson(body);
      const { body: answer, milliseconds } = await ask(this.task.path, text);
      const ids = answer.item_ids[0];
      return {
        answer,
        title: "Items",
        parts: [
          answerLine(ids.length, "item", answer, milliseconds),
          itemTable(ids, answer.scores[0]),
          requestDetails(this.task.path, text, answer),
        ],
      };
    });
  }
}

function itemTable(ids, scores) {
  const [best, worst] = [Math.max(...scores), Math.min(...scores)];
  return el("div", { class: "scroll" }, el("table", { class: "scores" },
    el("caption", { class: "unseen" }, "Items, the best first"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "number" }, "rank"),
      el("th", { scope: "col" }, "item"), el("th", { scope: "col", class: "number" }, "score"))),
    el("tbody", {}, ids.map((id, index) => el("tr", {},
      el("td", { class: "number" }, index + 1),
      el("th", { scope: "row" }, toText(id, typeof id === "string" ? "string" : "int64")),
      // From the worst that is shown to the best: scores need not begin at 0.
      el("td", { class: "number" },
        bar(best > worst ? 0.06 + (0.94 * (scores[index] - worst)) / (best - worst) : 1),
        shortNumber(scores[index])))))));
}

/** The vector of one user or item. */
export class EmbedPanel {
  constructor(tasks, page) {
    this.tasks = tasks;
    this.asking = new Asking(page);
    const id = newId("tower");
    this.tower = el("select", { id, onchange: () => this.draw() },
      tasks.map((task, index) => el("option", { value: String(index) }, task.tower)));
    this.inputs = el("div");
    this.element = el("form", { onsubmit: (event) => { event.preventDefault(); this.send(); } },
      tasks.length > 1
        ? el("p", { class: "actions" }, el("label", { for: id }, "Tower"), this.tower) : null,
      this.inputs,
      el("p", { class: "actions" }, el("button", { class: "primary" }, "Make the vector")),
      this.asking.element);
    this.draw();
  }

  draw() {
    this.task = this.tasks[Number(this.tower.value)];
    const title = this.task.tower === "item" ? "Item" : "User";
    this.form = new Form(title, this.task.columns, this.task.examples[0] ?? {}, {
      onchange: () => this.asking.age(),
    });
    this.inputs.replaceChildren(this.form.element);
    this.asking.clear();
  }

  body() {
    const body = { tower: this.task.tower, rows: [this.form.read()] };
    return { body, places: this.form.places("rows[0]") };
  }

  async send() {
    await this.asking.run(() => this.body(), async ({ body }) => {
      const text = dumpJson(body);
      const { body: answer, milliseconds } = await ask(this.task.path, text);
      const first = answer.vectors[0];
      const vectors = Array.isArray(first[0]) ? first : [first];
      return {
        answer,
        title: vectors.length > 1 ? "Vectors" : "Vector",
        parts: [
          answerLine(vectors[0].length, "number", answer, milliseconds),
          ...vectors.map(picture),
          requestDetails(this.task.path, text, answer),
        ],
      };
    });
  }
}

/** Bars up and down, with the numbers as text. */
function picture(vector) {
  const largest = Math.max(...vector.map(Math.abs), 1e-12);
  const width = 1000 / vector.length;
  const bars = vector.map((value, index) => {
    const height = (48 * Math.abs(value)) / largest;
    return svg("rect", {
      x: index * width,
      y: value > 0 ? 50 - height : 50,
      width: width * 0.8,
      height,
      class: value > 0 ? "up" : "down",
    });
  });
  const chart = svg("svg", {
    viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true",
  }, ...bars);
  const text = dumpJson(vector);
  const norm = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return el("div", { class: "vector", "data-part": "vector" }, chart,
    el("div", { class: "above" },
      el("span", { class: "soft" }, `length ${norm.toFixed(4)}`), copyButton(() => text)),
    el("pre", { tabindex: "0" }, text));
}
