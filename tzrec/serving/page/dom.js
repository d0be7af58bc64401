// Small helpers to build elements. Text only ever becomes text nodes, never HTML.

let counter = 0;

/** A new id for an element. */
export function newId(stem) {
  counter += 1;
  return `${stem}-${counter}`;
}

/**
 * Builds an element: el("p", {class: "soft", onclick: f}, "text", child).
 * Attributes that are null, undefined or false are left out.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A button that submits nothing. */
export function button(label, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, label);
}

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  copy: "M6 6V3.5h6.5V10H10M3.5 6H10v6.5H3.5z",
  remove: "M4 4l8 8M12 4l-8 8",
  apart: "M3 8h9M8.5 4.5 12 8l-3.5 3.5M14 3v10",
  together: "M13 8H4M7.5 4.5 4 8l3.5 3.5M2 3v10",
};

/** An SVG element; attributes are text. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** A button that shows a picture and is called `label`. */
export function iconButton(icon, label, onclick) {
  const picture = svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: ICONS[icon] }));
  return button(picture, onclick, { class: "icon", title: label, "aria-label": label });
}

/** A bar of a share of 0 to 1; what it says stands beside it as text. */
export function bar(share) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, fill);
}

/** A button that copies what `text()` gives. */
export function copyButton(text) {
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text());
      copy.textContent = "Copied";
    } catch {
      // The clipboard is there for https and localhost only.
      copy.textContent = "Select and copy by hand";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  }, { class: "small" });
  return copy;
}
