//! What a request costs beside the proxying: `cargo bench -p edge-layer --features bench`. Asserts nothing.
//! `tests/bench edge` measures the same steps beside nginx.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use edge_layer::bench::{Capturing, Limiting, Verifying};

/// Keys in the table.
const KEYS: usize = 1_000_000;

fn verify(criterion: &mut Criterion) {
    let verifying = Verifying::new(KEYS);
    let mut number = 0;
    let mut hit = || {
        number += 1;
        verifying.hit(number)
    };
    criterion.bench_function("verify/hit", |bencher| {
        bencher.iter_batched(
            &mut hit,
            |headers| black_box(verifying.verify(&headers)),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("verify/miss", |bencher| {
        bencher.iter_batched(
            || verifying.miss(),
            |headers| black_box(verifying.verify(&headers)),
            BatchSize::SmallInput,
        );
    });
}

fn limit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let limiting = Limiting::new(KEYS, folder.path());
    let mut number = 0;
    let mut key = || {
        number += 1;
        limiting.key(number)
    };
    criterion.bench_function("limit/check", |bencher| {
        bencher.iter_batched(&mut key, |key| (black_box(limiting.check(&key)), key), BatchSize::SmallInput);
    });
}

fn capture(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capturing = Capturing::new(folder.path());
    let mut number = 0;
    let mut request = || {
        number += 1;
        capturing.request(number)
    };
    criterion.bench_function("capture/record", |bencher| {
        bencher.iter_batched(&mut request, |request| capturing.record(&request), BatchSize::SmallInput);
    });
    criterion.bench_function("layer/call", |bencher| {
        bencher.iter_batched(&mut request, |request| capturing.call(request), BatchSize::SmallInput);
    });
}

criterion_group!(benches, verify, limit, capture);
criterion_main!(benches);
