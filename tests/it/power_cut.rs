//! A power cut: what the device below an ext4 has at the moment of an acknowledgement, mounted and served anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use darner::mqtt::{Packet, PacketId, ProtocolVersion, Publish, Qos};

use crate::broker::client::Client;
use crate::support::process::{Broker, Folder};
use crate::support::volume::Volume;

/// An empty ext4 in a file. `None` where no file can be mounted.
fn card(folder: &Folder) -> Option<PathBuf> {
    let image = folder.path().join("card");
    std::fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("an image");
    let options = ["-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    let makes = |image: &Path| Command::new("mkfs.ext4").args(options).arg(image).status().is_ok_and(|status| status.success());
    let can = nix::unistd::geteuid().is_root() && Path::new("/dev/loop-control").exists() && makes(&image);
    if !can {
        eprintln!("*** skipped: no file can be mounted here ***");
    }
    can.then_some(image)
}

fn start(volume: &Volume, level: &str) -> Broker {
    let folder = Folder::new("power-cut");
    folder.write("darner.toml", format!("durability = \"{level}\"\n"));
    let location = volume.path().display();
    let conf = format!("listener {{port}} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {location}\n");
    Broker::start_within(&volume.within(), folder, &conf)
}

/// What a broker finds on a copy of the device.
fn found(copy: &Path) -> Option<u32> {
    let volume = Volume::of_image(copy)?;
    let broker = start(&volume, "process");
    let mut reader = Client::connect(broker.port, "reader");
    reader.subscribe("state");
    reader.send(&Packet::Pingreq);
    let bytes = reader.receive_bytes().expect("a retained value, or PINGRESP");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split_once("state").and_then(|(_, value)| value.split(' ').next()?.parse().ok())
}

/// For each value that was acknowledged: what a power cut at that moment leaves of it. `None` where no file can be mounted.
fn cut(level: &str, size: usize, cuts: impl Fn(u32) -> bool, count: u32) -> Option<Vec<(u32, Option<u32>)>> {
    let folder = Folder::new("power-cut");
    let image = card(&folder)?;
    let volume = Volume::of_image(&image)?;
    let broker = start(&volume, level);
    let (mut client, _) = Client::log_in(broker.port, "publisher", None, ProtocolVersion::V311);
    let mut outcomes = Vec::new();
    for number in 1..=count {
        let payload = format!("{number} {}", "x".repeat(size));
        let packet_id = Some(PacketId::MIN);
        let payload = payload.as_bytes();
        client.send(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "state",
            packet_id,
            properties: Vec::new(),
            payload,
        }));
        assert_eq!(client.receive_bytes().map(|bytes| bytes[0]), Ok(0x40), "PUBACK");
        if cuts(number) {
            let copy = folder.path().join("copy");
            std::fs::copy(&image, &copy).expect("a copy");
            outcomes.push((number, found(&copy)));
        }
    }
    Some(outcomes)
}

#[test]
fn at_the_level_power_a_power_cut_loses_nothing_that_was_acknowledged() {
    // The file outgrows what it holds on the way, and is replaced.
    let Some(outcomes) = cut("power", 50_000, |number| number <= 2 || number >= 19, 26) else { return };
    for (number, found) in outcomes {
        assert_eq!(found, Some(number));
    }
}

#[test]
fn at_the_level_process_a_power_cut_does() {
    let Some(outcomes) = cut("process", 20, |_| true, 3) else { return };
    assert!(outcomes.iter().any(|(number, found)| *found != Some(*number)), "{outcomes:?}");
}
