//! `darner reload`, `restart`, `status`: the asking end of the control socket.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use super::control::{CERTIFICATE_LIMIT, Request, WORDS};
use crate::exit_code::ExitCode;
use crate::os::local_socket::{self, Kind};

const ANSWER_BYTES_MAX: u64 = 64 << 10;

pub(super) fn ask(request: Request) -> ExitCode {
    let word = WORDS.iter().find(|(_, known)| *known == request).map_or("", |(word, _)| word);
    match answer(word) {
        Ok((code, text)) => {
            let mut out: Box<dyn io::Write> = if code == 0 { Box::new(io::stdout()) } else { Box::new(io::stderr()) };
            let _ = writeln!(out, "{}", text.trim_end());
            ExitCode::Other(code)
        }
        Err(error) => {
            eprintln!("darner {word}: {error}");
            ExitCode::Failure
        }
    }
}

fn answer(word: &str) -> Result<(u8, String), String> {
    let mut stream = local_socket::find(Kind::Control).map_err(|error| {
        format!("no supervisor answers here ({error}). Run it inside of the container (docker exec NAME darner {word}), as root or as the broker's user.")
    })?;
    let limit = Duration::from_millis(CERTIFICATE_LIMIT) + Duration::from_secs(2);
    let exchange = |stream: &mut std::os::unix::net::UnixStream| -> io::Result<String> {
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.write_all(format!("{word}\n").as_bytes())?;
        let mut text = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = exchange(&mut stream).map_err(|error| format!("the supervisor does not answer: {error}"))?;
    let parsed = text.split_once('\n').and_then(|(code, text)| Some((code.parse().ok()?, text.to_owned())));
    parsed.ok_or_else(|| "the supervisor refuses: only root and the broker's user may ask".to_owned())
}
