// Measures how llama.cpp saves a sequence and restores it, through node-llama-cpp: MODEL BACKEND RUNS THREADS. Prints one
// line of JSON a size: bytes of the file, milliseconds to save, to restore warm and cold, and to a first token after that.
//
// Cold: the file was dropped from the system's cache before (by dd, on Linux).
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
    contextSize: 4096, batchSize: 512, sequences: 1, threads, flashAttention: true
});
const sequence = context.getSequence();
const folder = mkdtempSync(join(tmpdir(), "slots-"));
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const round = (x) => Math.round(x * 100) / 100;
const timed = async (work) => {
    const start = performance.now();
    await work();
    return performance.now() - start;
};
const drop = (file) => execFileSync("dd", [`of=${file}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"], { stdio: "ignore" });

for (const size of [512, 1024, 2048]) {
    const tokens = Array.from({ length: size }, (_, i) => 100 + (i * 7919) % 40000);
    await sequence.clearHistory();
    const compute = await timed(() => sequence.evaluateWithoutGeneratingNewTokens(tokens));
    const file = join(folder, `${size}.state`);
    const times = { save: [], warm: [], cold: [], first: [] };
    for (let run = 0; run <= runs; run++) {
        times.save.push(await timed(() => sequence.saveStateToFile(file)));
        for (const kind of ["warm", "cold"]) {
            await sequence.clearHistory();
            if (kind === "cold") drop(file);
            times[kind].push(await timed(() => sequence.loadStateFromFile(file, { acceptRisk: true })));
        }
        times.first.push(await timed(async () => {
            for await (const _ of sequence.evaluate([100], { temperature: 0 })) break;
        }));
        await sequence.eraseContextTokenRanges([{ start: size, end: sequence.nextTokenIndex }]);
    }
    const of = (kind) => round(median(times[kind].slice(1)));
    console.log(JSON.stringify({
        peer: `llama.cpp ${backend}`, version: llama.llamaCppRelease.release, tokens: size, bytes: statSync(file).size,
        save_ms: of("save"), warm_ms: of("warm"), cold_ms: of("cold"), first_token_ms: of("first"), compute_ms: round(compute)
    }));
}
rmSync(folder, { recursive: true });
process.exit(0);
