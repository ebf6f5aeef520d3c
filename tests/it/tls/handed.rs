//! What PID 1, which reads as root, hands to the broker of the files that TLS is about.

use darner::conf::files::{Disk, ReadFiles as _, Recorder};
use darner::conf::{CommandLine, Conf};

use super::folder;

#[test]
fn of_each_file_only_what_it_is_named_for() {
    let (folder, authority) = folder();
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    authority.revoke(&folder, &[9]);
    // One file for all, as some have it, and a folder in which a link leads to a secret.
    folder.write("all.pem", text("server.crt") + &text("server.key") + &text("ca.crt"));
    folder.write("ca-and-key.pem", text("ca.crt") + &text("server.key"));
    folder.write("list-and-key.pem", text("server.key") + &text("ca.crl"));
    let secret = folder.write("secret", "password: 12345");
    std::fs::create_dir(folder.path().join("path")).expect("a folder");
    std::os::unix::fs::symlink(&secret, folder.path().join("path/12345678.0")).expect("a link");
    std::os::unix::fs::symlink(folder.path().join("ca-and-key.pem"), folder.path().join("path/12345678.1")).expect("a link");
    let here = folder.path().display();
    let conf = format!(
        "listener 1 127.0.0.1\ncertfile {here}/all.pem\nkeyfile {here}/all.pem\n\
         listener 2 127.0.0.1\ncertfile {here}/all.pem\nkeyfile {here}/server.key\ncafile {here}/ca-and-key.pem\ncapath {here}/path\n\
         crlfile {here}/list-and-key.pem\nrequire_certificate true\n"
    );
    let path = folder.write("mosquitto.conf", conf);
    let recorder = Recorder::new(&Disk);
    let conf = Conf::load(&recorder, Some(&path), &CommandLine::default(), &[]).expect("a configuration");
    darner::tls::load(&recorder, &conf).expect("all is there");
    let generation = recorder.into_generation();
    let handed = |name: &str| String::from_utf8(generation.read(&folder.path().join(name)).expect("handed")).expect("text");
    let plain = |text: String| text.replace("\r\n", "\n");
    assert_eq!(handed("all.pem"), text("all.pem"), "the key in it is wanted");
    assert_eq!(handed("ca-and-key.pem"), plain(text("ca.crt")));
    assert_eq!(handed("list-and-key.pem"), plain(text("ca.crl")));
    assert_eq!(handed("path/12345678.0"), "");
    assert_eq!(handed("path/12345678.1"), plain(text("ca.crt")));
    darner::tls::load(&generation, &conf).expect("the broker has what it needs");
}
