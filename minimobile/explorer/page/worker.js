// Holds the network and computes it, away from the page. A request is {id, call, given}, its reply {id, result}; what
// happens meanwhile is told as {event, ...}. A change makes the run that is under way end, and begins another.

import { IntegerNetwork } from "./integers.js";
import { FloatNetwork } from "./network.js";
import { checksum, unpack } from "./payload.js";

let network = null;
let isEdited = false;
let run = 0;

const PATIENCE = 30; // milliseconds that a request waits at most; a pause costs 4
const pause = () => new Promise((resolve) => setTimeout(resolve));

const waiting = new Set(); // names of the layers whose maps are not there, or out of date

async function computeLayers(layers) {
  for (const layer of layers) waiting.add(layer.name);
  const own = ++run,
    start = performance.now();
  let rested = start;
  for (const layer of network.layers) {
    if (!waiting.has(layer.name)) continue;
    const map = network.run(layer);
    waiting.delete(layer.name);
    const done = network.layers.length - waiting.size;
    postMessage({ event: "layer", name: layer.name, done, count: network.layers.length, ...measure(layer, map) });
    if (performance.now() - rested < PATIENCE) continue;
    await pause(); // lets requests in, and a change end this run
    if (own !== run) return;
    rested = performance.now();
  }
  const outputs = network.outputs.map((name) => ({ name, ...network.maps.get(name) }));
  postMessage({ event: "done", isEdited, seconds: (performance.now() - start) / 1000, outputs });
}

// Nobody waits for a run: what goes wrong in it is told.
function begin(layers) {
  computeLayers(layers).catch((error) => postMessage({ event: "failed", error: String(error) }));
}

// Range and shares of a layer's values, and whether they are the engine's, to the bit.
function measure(layer, map) {
  const limit = network.limit(layer),
    zero = network.zero(layer),
    values = map.values,
    count = values.length;
  let minimum = Infinity,
    maximum = -Infinity,
    total = 0,
    zeros = 0,
    limited = 0;
  for (let k = 0; k < count; k++) {
    const value = values[k];
    if (value < minimum) minimum = value;
    if (value > maximum) maximum = value;
    if (value === zero) zeros++;
    if (value === limit) limited++;
    total += value;
  }
  return {
    minimum,
    maximum,
    mean: total / count,
    zeros: zeros / count,
    limited: limit === null ? null : limited / count,
    isSame: isEdited ? null : checksum(map.values) === layer.checksum,
  };
}

const CALLS = {
  async start({ description, weights }) {
    const read = await unpack(weights);
    const input = { ...description.input, ...read(description.input.values) };
    const Network = description.arithmetic === "integers" ? IntegerNetwork : FloatNetwork;
    network = new Network(
      description.layers,
      { ...input, shape: description.input.shape },
      description.weights.map(read),
    );
    network.outputs = description.outputs;
    begin(network.layers);
    return { fields: [...network.fields()] };
  },
  map: ({ name }) => (waiting.has(name) ? null : network.maps.get(name)),
  weights: ({ name }) => network.weights(network.byName.get(name)),
  explain: ({ name, position }) => (waiting.has(name) ? null : network.explain(name, position)),
  window: ({ name }) => network.window(network.byName.get(name)),
  setPixel: ({ position, value }) => change(network.setPixel(...position, value)),
  setWeight: ({ name, position, value }) => change(network.setWeight(network.byName.get(name), position, value)),
  setPadding: ({ rule }) => change(network.setPadding(rule)),
  undo: () => {
    network.undo();
    isEdited = false;
    begin(network.layers);
    return { fields: [...network.fields()] };
  },
};

function change(layers) {
  isEdited = true;
  begin(layers);
  return { fields: [...network.fields()] };
}

let begun = null; // the call that reads the weights, for which all others wait

onmessage = async ({ data: { id, call, given } }) => {
  try {
    if (call === "start") {
      begun = CALLS.start(given);
      postMessage({ id, result: await begun });
      return;
    }
    await begun;
    postMessage({ id, result: await CALLS[call](given) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
