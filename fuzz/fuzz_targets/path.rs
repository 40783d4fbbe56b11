#![no_main]
//! libFuzzer's entry to [`keyward_fuzz::path`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyward_fuzz::path::check(data));
