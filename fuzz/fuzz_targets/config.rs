#![no_main]
//! libFuzzer's entry to [`keyward_fuzz::config`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyward_fuzz::config::check(data));
