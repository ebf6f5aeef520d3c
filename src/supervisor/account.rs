//! Who the broker becomes.

use crate::os::accounts;
use crate::os::spawn::Identity;

/// The image's `mosquitto`.
const MOSQUITTO: Identity = Identity { uid: 1883, gid: 1883 };

/// The identity for `user NAME`, and a warning where it is a guess. `None` is "stay who we are": we are not root, or `user root`.
pub(super) fn resolve(user: &str, passwd: &str, environment: impl Fn(&str) -> Option<String>) -> (Option<Identity>, Option<String>) {
    if user == "root" {
        return (None, None);
    }
    let number = |name: &str| environment(name).and_then(|text| text.trim().parse::<u32>().ok());
    let (found, warning) = match accounts::find(user, passwd) {
        Some(identity) => (identity, None),
        None if user == "mosquitto" => (MOSQUITTO, None),
        None => (MOSQUITTO, Some(format!("Warning: user \"{user}\" is not in /etc/passwd; the broker runs as 1883:1883."))),
    };
    let identity = Identity { uid: number("PUID").unwrap_or(found.uid), gid: number("PGID").unwrap_or(found.gid) };
    (Some(identity), warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nmosquitto:x:100:101::/var/empty:/sbin/nologin\n";

    #[test]
    fn the_file_then_the_image_then_the_environment_decide() {
        let nothing = |_: &str| None;
        let resolve_in = |user, passwd| resolve(user, passwd, nothing).0.map(|identity| (identity.uid, identity.gid));
        assert_eq!(resolve_in("mosquitto", PASSWD), Some((100, 101)));
        assert_eq!(resolve_in("mosquitto", ""), Some((1883, 1883)));
        assert_eq!(resolve_in("root", PASSWD), None);
        assert!(resolve("nobody-knows", PASSWD, nothing).1.is_some_and(|warning| warning.contains("nobody-knows")));
        let puid = |name: &str| (name == "PUID").then(|| "1000".to_owned());
        assert_eq!(resolve("mosquitto", PASSWD, puid).0, Some(Identity { uid: 1000, gid: 101 }));
    }
}
