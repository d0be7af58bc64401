// The panel that scores candidates.

import { ask } from "./api.js";
import { button, el, iconButton, newId } from "./dom.js";
import { Candidates, Form } from "./fields.js";
import { Asking } from "./asking.js";
import { answerLine, FEATURES, featureTable, requestDetails, Scores } from "./results.js";
import { dumpJson } from "./values.js";

const FIRST_CANDIDATES = 3;

/**
 * Fields for the columns of a model that scores rows.
 *
 * `task` is {path, columns, examples}. Columns of the item differ between candidates, the others
 * are shared; each column can be moved to the other side. Examples are what the server had as
 * rows: the first one's user, with the items of the first ones.
 */
export class PredictPanel {
  constructor(task, page) {
    this.task = task;
    this.varying = new Set(
      task.columns.filter((column) => column.side === "item").map((column) => column.name),
    );
    this.asking = new Asking(page);
    this.wantsFeatures = el("input", { type: "checkbox", id: newId("features") });
    this.inputs = el("div");
    this.element = el("form", { onsubmit: (event) => { event.preventDefault(); this.send(); } },
      this.inputs,
      el("p", { class: "actions" },
        el("button", { class: "primary" }, "Score"),
        el("label", { class: "check" }, this.wantsFeatures, "show the generated features"),
        button("Example again", () => this.fillIn())),
      this.asking.element);
    this.fillIn();
  }

  /** Puts the example into the fields. */
  fillIn() {
    const examples = this.task.examples.length ? this.task.examples : [{}];
    const rows = this.varying.size ? examples.slice(0, FIRST_CANDIDATES) : examples.slice(0, 1);
    this.draw(examples[0], rows);
    this.asking.clear();
  }

  draw(shared, rows) {
    const isVarying = (column) => this.varying.has(column.name);
    const onchange = () => this.asking.age();
    const columns = this.task.columns;
    const fixed = columns.filter((column) => !isVarying(column));
    this.columns = columns.filter(isVarying);
    this.form = fixed.length ? new Form(this.columns.length ? "Context" : "Row", fixed, shared, {
      note: this.columns.length ? "The same for all candidates: the user, the moment." : "",
      onchange,
      actionOf: (column) => iconButton(
        "apart", `Another ${column.name} for each candidate`, () => this.move(column),
      ),
    }) : null;
    this.candidates = this.columns.length
      ? new Candidates(this.columns, rows, { onshare: (column) => this.move(column), onchange })
      : null;
    this.inputs.replaceChildren(
      ...[this.form, this.candidates].filter(Boolean).map((part) => part.element),
    );
  }

  /** Moves a column to the other side; what was typed stays. */
  move(column) {
    const shared = this.form ? Object.fromEntries(this.form.fields.map(quietly)) : {};
    const rows = this.candidates ? this.candidates.texts() : [{}];
    if (this.varying.delete(column.name)) {
      shared[column.name] = rows[0][column.name];
    } else {
      this.varying.add(column.name);
      for (const row of rows) row[column.name] = shared[column.name];
    }
    this.draw(shared, rows);
    this.inputs.querySelector(`[data-column="${CSS.escape(column.name)}"]`)?.focus();
  }

  /** The request's body, and which field each of its paths is. */
  body() {
    const form = this.form?.read() ?? {};
    if (this.candidates === null) {
      return { body: { rows: [form] }, rows: [form], places: this.form.places("rows[0]") };
    }
    const rows = this.candidates.read();
    if (this.form === null) {
      return { body: { rows }, rows, places: this.candidates.places("rows") };
    }
    return {
      body: { context: form, items: rows },
      rows,
      places: [...this.form.places("context"), ...this.candidates.places("items")],
    };
  }

  async send() {
    await this.asking.run(() => this.body(), async ({ body, rows }) => {
      const isAsked = this.wantsFeatures.checked;
      const text = dumpJson(isAsked ? { ...body, features: true } : body);
      const { body: answer, milliseconds } = await ask(this.task.path, text);
      const columns = this.candidates ? this.columns : [];
      const features = answer.outputs[FEATURES] ?? answer[FEATURES];
      const parts = [
        answerLine(rows.length, this.candidates ? "candidate" : "row", answer, milliseconds),
        new Scores(answer.outputs, rows, columns).element,
        features ? featureTable(features) : null,
        requestDetails(this.task.path, text, answer),
      ];
      return { answer, title: "Scores", parts };
    });
  }
}

function quietly(field) {
  try {
    return [field.column.name, field.read()];
  } catch {
    return [field.column.name, null];
  }
}
