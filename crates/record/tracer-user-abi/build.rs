//! How the library is linked: under the name that programs ask for, and never unloaded (its thread
//! and the call sites of other modules stay).

fn main() {
    for argument in [
        "-Wl,-soname,liblttng-ust.so.1",
        "-Wl,-z,nodelete",
        "-Wl,-z,now",
        // What is missing is missed here, not in some program.
        "-Wl,-z,defs",
        "-Wl,--as-needed",
    ] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
