#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sillage_fuzz::targets::btf(data));
