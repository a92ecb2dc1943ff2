// Elements, and numbers as text. Whatever comes from a file is put in as text, never as markup.

import { fround } from "./fma.js";

// make("button", { class: "plain", onclick }, "text", child): attributes, or properties where the value is no text.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (id) => document.getElementById(id);

// A table that scrolls by itself where it is too wide or long.
export function scroller(label, table) {
  return make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": label }, table);
}

// What happened, for screen readers.
export function announce(text) {
  find("announcer").textContent = text;
}

// A field with its label.
export function field(label, input) {
  return make("label", { class: "field" }, make("span", {}, label), input);
}

export function numberInput(attributes) {
  return make("input", { type: "number", inputmode: "decimal", step: "any", ...attributes });
}

// The fewest digits that give a float32 back, and give it to whoever adds the numbers of this page again.
export function exact(value) {
  if (value !== fround(value)) return String(value);
  for (let digits = 1; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}

// About four digits, to be read at a glance.
export function short(value) {
  if (!Number.isFinite(value) || value === 0) return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export const percent = (share) => `${share > 0 && share < 0.001 ? "< 0.1" : (100 * share).toFixed(1)} %`;
export const grouped = (count) => count.toLocaleString("en");
export const sizes = (shape) => shape.join("×");

// The bits of a float32 as eight hexadecimal digits.
export function bitsOf(value) {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  return view.getUint32(0).toString(16).padStart(8, "0");
}

// How many float32 lie from one to another.
export function countUlps(x, y) {
  const place = (value) => {
    const bits = parseInt(bitsOf(value), 16);
    return bits >= 2 ** 31 ? 2 ** 31 - bits : bits;
  };
  return Math.abs(place(x) - place(y));
}
