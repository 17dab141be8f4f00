// What the kernels share that measure an adapter.
#import shared/step

struct RoofParams {
    count: u32,     // elements of x and of y
    turns: u32,     // turns of the loop
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(1) var<uniform> params: RoofParams;
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;        // (count)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<u32>>;  // (count)
