//! The door: argv → `cli::run` → exit code. Everything else is in the library.

fn main() -> std::process::ExitCode {
    // A signal sent to PID 1 while it starts is lost unless it is blocked: first statement, before argv is looked at.
    darner::os::signals::block_all();
    darner::cli::run(std::env::args_os().collect()).into()
}
