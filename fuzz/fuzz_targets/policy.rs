#![no_main]
//! libFuzzer's entry to [`keyward_fuzz::policy`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyward_fuzz::policy::check(data));
