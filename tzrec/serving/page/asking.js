// One request at a time: its errors at the fields, its answer below the form.

import { ServerError } from "./api.js";
import { el } from "./dom.js";
import { fieldAt } from "./fields.js";
import { ValueError } from "./values.js";

/** Where the answer, or what went wrong, is shown. */
export class Asking {
  constructor(page) {
    this.page = page;
    this.problem = el("div", { class: "notice bad", role: "alert", hidden: true });
    this.result = el("section", { class: "card result", tabindex: "-1", hidden: true });
    this.element = el("div", { class: "answer", "aria-live": "polite" }, this.problem, this.result);
    this.number = 0;
    this.marked = null;
  }

  /** Removes answer and error. */
  clear() {
    this.number += 1;
    this.problem.hidden = true;
    this.result.hidden = true;
    this.result.replaceChildren();
  }

  /** The fields have changed since the answer. */
  age() {
    this.result.classList.add("old");
  }

  /**
   * Reads the fields (`read`), asks (`ask`) and shows the answer.
   *
   * `read()` gives {places, …} or raises ValueError; `ask(read)` gives {answer, title, parts}.
   * The answer to an older request never replaces that to a newer one.
   */
  async run(read, ask) {
    this.number += 1;
    const number = this.number;
    this.problem.hidden = true;
    this.marked?.clear();
    let request = null;
    try {
      request = read();
      this.result.classList.add("waiting");
      const { answer, title, parts } = await ask(request);
      if (number !== this.number) return;
      this.result.replaceChildren(el("h2", {}, title), ...parts.filter(Boolean));
      this.result.hidden = false;
      this.result.classList.remove("old");
      this.page.sawVersion(answer.version);
    } catch (error) {
      if (number !== this.number) return;
      this.fail(error, request?.places ?? []);
    } finally {
      if (number === this.number) this.result.classList.remove("waiting");
    }
  }

  fail(error, places) {
    this.result.hidden = true;
    if (error instanceof ValueError) {
      this.tell(["Some fields cannot be sent: see what they say."]);
      return;
    }
    if (!(error instanceof ServerError)) throw error;
    if (error.status === 401) {
      this.page.askToken(error);
      return;
    }
    this.marked = fieldAt(places, error.field);
    this.marked?.mark(error.message);
    this.marked?.input.focus();
    const wait = error.retryAfter ? `Try again in ${error.retryAfter} s.` : "";
    this.tell([error.message, error.hint, wait]);
  }

  tell(lines) {
    this.problem.replaceChildren(...lines.filter(Boolean).map((line) => el("p", {}, line)));
    this.problem.hidden = false;
  }
}
