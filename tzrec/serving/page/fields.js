// Fields for columns: a label, a type, an input, and what is wrong with it.

import { button, el, iconButton, newId } from "./dom.js";
import { fromText, kindOf, toText, typeName, ValueError } from "./values.js";

const LONG_TEXT = 60;
const [LEAST_SIZE, MOST_SIZE] = [10, 30];
const MODES = { int: "numeric", float: "decimal" };

/**
 * One value of one column.
 *
 * `column` is {name, type, nullable}; `label` names the field to those who do not see where it
 * stands, and null makes a visible label of the column's name.
 */
export class Field {
  constructor(column, value, { label = null, action = null, onchange = () => {} } = {}) {
    this.column = column;
    const id = newId("field");
    const kind = kindOf(column.type);
    const text = toText(value, column.type);
    const isLong = label === null && text.length > LONG_TEXT;
    this.input = el(isLong ? "textarea" : "input", {
      id,
      type: isLong ? null : "text",
      rows: isLong ? 3 : null,
      // In a table, as wide as what it holds, within reason.
      size: label === null ? null : Math.min(Math.max(text.length, LEAST_SIZE), MOST_SIZE),
      inputmode: MODES[kind],
      autocomplete: "off",
      spellcheck: "false",
      placeholder: column.nullable === false ? null : "missing",
      "aria-label": label,
      "aria-describedby": `${id}-error`,
      "data-column": column.name,
    });
    this.input.value = text;
    this.problem = el("span", { id: `${id}-error`, class: "problem" });
    this.problem.hidden = true;
    this.input.addEventListener("input", () => { this.clear(); onchange(); });
    this.element = label === null
      ? el("div", { class: "field" },
        el("div", { class: "above" },
          el("label", { for: id }, column.name),
          typeOf(column), action),
        this.input, this.problem)
      : el("div", { class: "field" }, this.input, this.problem);
  }

  /** The value typed. Raises ValueError and marks the field. */
  read() {
    try {
      const value = fromText(this.input.value, this.column.type);
      if (value === null && this.column.nullable === false) throw new ValueError("needs a value");
      return value;
    } catch (error) {
      if (error instanceof ValueError) this.mark(error.message);
      throw error;
    }
  }

  /** Shows what is wrong. */
  mark(message) {
    this.problem.textContent = message;
    this.problem.hidden = false;
    this.input.setAttribute("aria-invalid", "true");
  }

  /** Takes it back. */
  clear() {
    this.problem.hidden = true;
    this.problem.textContent = "";
    this.input.removeAttribute("aria-invalid");
  }
}

function typeOf(column) {
  return el("span", { class: "type", title: column.type }, typeName(column.type));
}

/** Reads fields into an object; marks all that are wrong, then raises the first problem. */
export function readAll(fields) {
  const values = {};
  let first = null;
  for (const field of fields) {
    try {
      values[field.column.name] = field.read();
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      if (first === null) field.input.focus();
      first ??= error;
    }
  }
  if (first !== null) throw first;
  return values;
}

/**
 * Finds the field that an error of the server is about.
 *
 * `places` are [path, field]; the server may name a part of a value (`rows[0].tags[2]`), or the
 * column alone. Returns null if it is about none of them.
 */
export function fieldAt(places, path) {
  if (!path) return null;
  const fits = places
    .filter(([place]) => path === place || path.startsWith(`${place}[`)
      || path.startsWith(`${place}.`))
    .sort(([a], [b]) => b.length - a.length);
  if (fits.length) return fits[0][1];
  const ofColumn = ([, { column }]) => path === column.name || path.endsWith(`.${column.name}`);
  return places.find(ofColumn)?.[1] ?? null;
}

/** A fieldset with one field a column. */
export class Form {
  constructor(title, columns, values, { note = "", actionOf = () => null, onchange } = {}) {
    this.fields = columns.map((column) => new Field(column, values[column.name], {
      action: actionOf(column), onchange,
    }));
    this.element = el("fieldset", { class: "card" },
      el("legend", {}, title),
      note ? el("p", { class: "soft" }, note) : null,
      el("div", { class: "grid" }, this.fields.map((field) => field.element)));
  }

  /** Column → value. Raises ValueError. */
  read() {
    return readAll(this.fields);
  }

  /** [path, field] of every field, as the server names them below `prefix`. */
  places(prefix) {
    return this.fields.map((field) => [`${prefix}.${field.column.name}`, field]);
  }
}

/** The table of candidates: a row each, one column a column that differs between them. */
export class Candidates {
  constructor(columns, rows, { onshare, onchange }) {
    this.columns = columns;
    this.onshare = onshare;
    this.onchange = onchange;
    this.rows = [];
    this.body = el("tbody");
    this.add = button("Add a candidate", () => {
      this.append(this.texts().at(-1));
      this.rows.at(-1).fields[0].input.focus();
    });
    this.element = el("fieldset", { class: "card" },
      el("legend", {}, "Candidates"),
      el("p", { class: "soft" }, "One row each. They are scored with the same context."),
      el("div", { class: "scroll" }, el("table", { class: "inputs" },
        el("thead", {}, el("tr", {},
          el("th", { scope: "col" }, "#"), columns.map((column) => this.head(column)),
          el("th", { scope: "col" }, el("span", { class: "unseen" }, "Change the list")))),
        this.body)),
      el("p", { class: "actions" }, this.add));
    for (const row of rows) this.append(row);
  }

  head(column) {
    const label = `One ${column.name} for all candidates`;
    return el("th", { scope: "col" },
      el("div", { class: "above" }, el("span", {}, column.name),
        iconButton("together", label, () => this.onshare(column))),
      typeOf(column));
  }

  /** Adds a row, `values` is column → value. */
  append(values, place = this.rows.length) {
    const fields = this.columns.map((column) => new Field(column, values?.[column.name], {
      label: column.name, onchange: this.onchange,
    }));
    const number = el("th", { scope: "row", class: "number" });
    const row = { fields, number };
    row.copy = iconButton("copy", "", () => {
      const after = this.rows.indexOf(row) + 1;
      this.append(this.texts()[after - 1], after);
      this.rows[after].fields[0].input.focus();
    });
    row.drop = iconButton("remove", "", () => this.remove(row));
    row.element = el("tr", {}, number, fields.map((field) => el("td", {}, field.element)),
      el("td", { class: "tools" }, row.copy, row.drop));
    this.body.insertBefore(row.element, this.rows[place]?.element ?? null);
    this.rows.splice(place, 0, row);
    this.renumber();
  }

  remove(row) {
    const place = this.rows.indexOf(row);
    this.rows.splice(place, 1);
    row.element.remove();
    this.renumber();
    this.rows[Math.min(place, this.rows.length - 1)].drop.focus();
  }

  renumber() {
    this.rows.forEach((row, index) => {
      row.number.textContent = index + 1;
      for (const field of row.fields) {
        field.input.setAttribute("aria-label", `${field.column.name} of candidate ${index + 1}`);
      }
      for (const [tool, verb] of [[row.copy, "Copy"], [row.drop, "Remove"]]) {
        tool.setAttribute("aria-label", `${verb} candidate ${index + 1}`);
        tool.title = `${verb} candidate ${index + 1}`;
      }
      row.drop.disabled = this.rows.length === 1;
    });
    this.onchange();
  }

  /** Column → value of each row; what does not fit its type is left out. */
  texts() {
    return this.rows.map(({ fields }) => Object.fromEntries(fields.map((field) => {
      try {
        return [field.column.name, fromText(field.input.value, field.column.type)];
      } catch {
        return [field.column.name, null];
      }
    })));
  }

  /** Column → value of each row. Raises ValueError. */
  read() {
    readAll(this.rows.flatMap((row) => row.fields));
    return this.texts();
  }

  /** [path, field] of every field, as the server names them below `prefix`. */
  places(prefix) {
    return this.rows.flatMap((row, index) => row.fields.map(
      (field) => [`${prefix}[${index}].${field.column.name}`, field],
    ));
  }
}
