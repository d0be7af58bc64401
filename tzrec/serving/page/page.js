// The page: asks the server what it serves and builds a panel for each thing it can do.

import { ask, hasToken, setToken } from "./api.js";
import { button, el } from "./dom.js";
import { PredictPanel } from "./predict.js";
import { readSchema } from "./schema.js";
import { EmbedPanel, RetrievePanel } from "./vectors.js";

const RETRY_MS = 1500;
const byId = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.version = null;
    this.number = 0;
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      setToken(byId("token").value);
      byId("token-form").hidden = true;
      this.load();
    });
  }

  /** Reads the schema and builds the panels; asks again while the server is not ready. */
  async load() {
    this.number += 1;
    const number = this.number;
    try {
      const { body } = await ask("v1/schema");
      if (number === this.number) this.build(readSchema(body));
    } catch (error) {
      if (number !== this.number) return;
      if (error.status === 401) {
        this.askToken(error);
        return;
      }
      this.setState("down", error.status === 503 ? "loading" : "not reachable");
      byId("about").textContent = [error.message, error.hint].filter(Boolean).join(" ");
      if (error.status === undefined) throw error;
      setTimeout(() => { if (number === this.number) this.load(); }, RETRY_MS);
    }
  }

  build(schema) {
    this.version = schema.version;
    document.title = `${schema.model} · tzrec`;
    byId("model").textContent = schema.model;
    byId("about").textContent = schema.about;
    this.setState("up", "serving");
    // A link carries no token.
    byId("links").hidden = hasToken();
    const panels = schema.tasks.flatMap((task, index) => {
      if (task.name === "predict") return [["Score", new PredictPanel(task, this)]];
      if (task.name === "retrieve") return [["Find items", new RetrievePanel(task, this)]];
      // The towers of "embed" share a panel.
      if (schema.tasks[index - 1]?.name === task.name) return [];
      const towers = schema.tasks.filter((other) => other.name === task.name);
      return [["Vectors", new EmbedPanel(towers, this)]];
    });
    this.show(panels);
  }

  /** One panel as it is, several as tabs: arrow keys move between them. */
  show(panels) {
    const tabs = panels.map(([title], index) => button(title, () => choose(index), {
      role: "tab", id: `tab-${index}`, "aria-controls": `panel-${index}`,
    }));
    const parts = panels.map(([, panel], index) => el("div", panels.length > 1 ? {
      role: "tabpanel", id: `panel-${index}`, "aria-labelledby": `tab-${index}`,
    } : {}, panel.element));
    const choose = (chosen) => panels.forEach((_, index) => {
      tabs[index].setAttribute("aria-selected", String(index === chosen));
      tabs[index].tabIndex = index === chosen ? 0 : -1;
      parts[index].hidden = index !== chosen;
    });
    byId("tabs").onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
      choose(next);
      tabs[next].focus();
      event.preventDefault();
    };
    byId("tabs").replaceChildren(...tabs);
    byId("tabs").hidden = panels.length < 2;
    byId("panels").replaceChildren(...parts);
    choose(0);
  }

  setState(kind, text) {
    byId("state").className = `state ${kind}`;
    byId("state").textContent = text;
  }

  /** An answer came from `version`: says so where it is not the one whose fields are shown. */
  sawVersion(version) {
    if (!version || version === this.version) return;
    byId("notice").replaceChildren(
      `The server has changed to version ${version}. What is shown here was made for ${this.version}. `,
      button("Load the fields again", () => { byId("notice").hidden = true; this.load(); },
        { class: "small" }),
    );
    byId("notice").hidden = false;
    this.version = version;
  }

  /** Shows the form for the token; `error` is the answer that asked for it. */
  askToken(error) {
    this.setState("down", "token needed");
    byId("about").textContent = error.message;
    byId("token-form").hidden = false;
    byId("panels").replaceChildren();
    byId("tabs").hidden = true;
    byId("token").focus();
  }
}

new Page().load();
