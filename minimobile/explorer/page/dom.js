// Elements, and numbers as text. Whatever comes from a file is put in as text, never as markup.

import { LARGEST, fround } from "./fma.js";

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

// Put other children into an element; the focus stays with the field or button of the same name.
export function refill(element, ...children) {
  const name = element.contains(document.activeElement) ? document.activeElement.name : "";
  element.replaceChildren(...children);
  if (name) element.querySelector(`[name="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
}

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

// A field for any number of float32.
export function float32Input(attributes) {
  return numberInput({ min: -LARGEST, max: LARGEST, ...attributes });
}

export const isRight = (input) => input.value !== "" && input.validity.valid;

// Fields of numbers in a row and a button that does something with them, as Enter does; or one sentence about the first
// that is wrong. Not a form: the frame of a notebook lets none be sent.
export function entries(fields, text, act) {
  const complaint = make("p", { class: "complaint", role: "alert" });
  const go = () => {
    const wrong = fields.find(([, input]) => !isRight(input));
    complaint.textContent = wrong ? complain(...wrong) : "";
    if (wrong) wrong[1].focus();
    else act();
  };
  for (const [, input] of fields) {
    input.onkeydown = (event) => {
      if (event.key === "Enter") go();
    };
  }
  const button = make("button", { type: "button", name: text, onclick: go }, text);
  return make(
    "div",
    {},
    make("div", { class: "row" }, fields.map(([label, input]) => field(label, input)), button),
    complaint,
  );
}

function complain(label, { min, max, step, value }) {
  const kind = step === "any" ? "a number" : "a whole number";
  return `${label}: expected ${kind} from ${min} to ${max}, got ${value === "" ? "none" : value}.`;
}

// A picture takes the room that there is, and its style sheet bounds its height by this: were it fitted into a box of
// another shape, other pixels than those under the pointer would be read.
export function setSize(canvas, width, height) {
  Object.assign(canvas, { width, height });
  canvas.style.setProperty("--ratio", width / height);
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
