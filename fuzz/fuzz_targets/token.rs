#![no_main]
//! libFuzzer's entry to [`keyward_fuzz::token`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyward_fuzz::token::check(data));
