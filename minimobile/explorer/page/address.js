// What is open, in the page's address: #layer=NAME, and &channel=9, and &row=3&column=4. A link to it opens there.

import { find } from "./dom.js";

const KEYS = ["layer", "channel", "row", "column"];
const SHOWN = 60; // letters of what is wrong, at most

const quote = (text) => JSON.stringify(text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text);

// In a notebook's frame the page has no address of its own: what is open there is told to nobody.
export const hasAddress = () => location.protocol !== "about:";

// Return {name, channel, position} of an address, where position is [row, column, channel] or null; or null where it
// names nothing, or a part of this page. Throws one sentence about one that is wrong. `layers` are layers by name.
export function readAddress(hash, layers) {
  if (hash.length < 2 || find(hash.slice(1))) return null;
  const words = new URLSearchParams(hash.slice(1)),
    keys = [...words.keys()];
  const wrong = keys.find((key, k) => !KEYS.includes(key) || keys.indexOf(key) !== k);
  if (wrong !== undefined)
    throw new Error(`The address: expected layer, channel, row and column, each once, got ${quote(wrong)}.`);
  const layer = layers.get(words.get("layer"));
  if (!layer) {
    const first = layers.keys().next().value,
      got = quote(words.get("layer") ?? "none");
    throw new Error(`The address: expected a layer of this network, such as layer=${first}, got ${got}.`);
  }
  if (words.has("row") !== words.has("column"))
    throw new Error(`The address: expected a row and a column, got one of them alone.`);
  const [channels, height, width] = layer.shape;
  const [channel, row, column] = [
    ["channel", channels],
    ["row", height],
    ["column", width],
  ].map(([key, count]) => readPlace(key, words.get(key) ?? "0", count));
  return { name: layer.name, channel, position: words.has("row") ? [row, column, channel] : null };
}

function readPlace(key, text, count) {
  if (!/^\d{1,9}$/.test(text) || Number(text) >= count)
    throw new Error(`The address's ${key}: expected a whole number from 0 to ${count - 1}, got ${quote(text)}.`);
  return Number(text);
}

// The address of a layer, or of one of its values.
export function writeAddress(name, position) {
  const [row, column, channel] = position ?? [];
  return `#${new URLSearchParams({ layer: name, ...(position && { channel, row, column }) })}`;
}
