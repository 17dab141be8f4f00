// Measures one backend of llama.cpp through node-llama-cpp: MODEL BACKEND RUNS THREADS. Prints one line of JSON.
//
// It drives the addon's batches itself, as llama-bench does: the library's own generator would add its work to every
// token. Prefill is one batch from an empty context up to the sampled token. Decode is 128 batches of one token from an
// empty context; the tokens are given, and only the last is sampled. Every size runs once unmeasured, because the first
// run compiles shaders. KV is f16, flash attention is on.
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const [modelPath, backend, runsText, threadsText] = process.argv.slice(2);
const runs = Number(runsText), threads = Number(threadsText);

const llama = await getLlama({
    gpu: backend === "cpu" ? false : backend,
    build: "never",
    skipDownload: true,
    logLevel: LlamaLogLevel.error,
    maxThreads: threads
});
const model = await llama.loadModel({ modelPath, gpuLayers: backend === "cpu" ? 0 : "max" });
const context = await model.createContext({
    contextSize: 1024, batchSize: 512, sequences: 1, threads, flashAttention: true
});
const inner = context._ctx;
const sampler = new llama._bindings.AddonSampler(model._model);
sampler.applyConfig({ temperature: 0 });

// Ordinary tokens, the same in every run.
const vocabulary = 40000;
const tokens = Uint32Array.from({ length: 512 }, (_, i) => 100 + (i * 7919) % vocabulary);

async function batch(position, slice, sample) {
    inner.initBatch(slice.length);
    const [logits] = inner.addToBatch(0, position, slice, Uint32Array.of(slice.length - 1));
    await inner.decodeBatch();
    if (sample) await inner.sampleToken(logits, sampler);
}

async function timed(count, work) {
    inner.disposeSequence(0);
    const start = performance.now();
    await work();
    return count / ((performance.now() - start) / 1000);
}

const prefill = (count) => timed(count, () => batch(0, tokens.subarray(0, count), true));
const decode = (count) => timed(count, async () => {
    for (let i = 0; i < count; i++) await batch(i, tokens.subarray(i, i + 1), i === count - 1);
});

const sizes = [
    ["prefill_128", () => prefill(128)],
    ["prefill_512", () => prefill(512)],
    ["decode_128", () => decode(128)]
];
await prefill(128);
await prefill(512);
await decode(4);
const results = Object.fromEntries(sizes.map(([name]) => [name, []]));
// Sizes take turns, so that a disturbance of the machine does not fall on one of them.
for (let run = 0; run < runs; run++) {
    for (const [name, measure] of sizes) results[name].push(await measure());
}

const round = (x) => Math.round(x * 100) / 100;
const median = (list) => {
    const sorted = [...list].sort((a, b) => a - b), middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const line = {
    peer: `llama.cpp ${backend}`,
    version: `${llama.llamaCppRelease.release} (node-llama-cpp)`,
    ...Object.fromEntries(sizes.map(([name]) => [name, round(median(results[name]))])),
    adapter: backend === "cpu" ? "CPU" : (await llama.getGpuDeviceNames()).join(", "),
    threads: inner.getThreads(),
    runs: Object.fromEntries(sizes.map(([name]) => [name, results[name].map(round)]))
};
console.log(JSON.stringify(line));
process.exit(0);
