#![no_main]
//! libFuzzer's entry to [`keyward_fuzz::record`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyward_fuzz::record::check(data));
