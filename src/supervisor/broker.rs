//! The broker as a [`Service`]: how it is prepared, and what it and the other commands say. `launch` is how it is spawned, `requests` what the
//! control socket and new certificates ask for.

mod launch;
mod requests;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use super::account;
use super::arguments::Arguments;
use super::certbot_image;
use super::certificates::Certificates;
use super::control::{Control, Waits};
use super::generation::{self, Eyes, Loaded, Refusal};
use super::listeners::Listeners;
use super::machine::{Event, Millis};
use super::notify::{Message, Notify};
use super::oom;
use super::phase::Phase;
use super::run::{Service, State};
use super::signal_table::{self, Meaning};
use super::voice::{self, Voice};
use crate::conf::{Conf, change};
use crate::exit_code::ExitCode;
use crate::logging::LogType;
use crate::os;
use crate::os::local_socket::{self, Kind};
use crate::os::reap::Ending;
use crate::os::spawn::{Identity, SpawnError, Step};
use crate::repair;

/// The broker waits for the repair; the walk over owners is cut short after this.
const REPAIR_BUDGET: Duration = Duration::from_secs(2);

pub(super) struct Broker {
    arguments: Arguments,
    voice: Voice,
    watchdog: Option<Millis>,
    root: bool,
    identity: Option<Identity>,
    conf: Option<Conf>,
    archive: Option<File>,
    /// Handed to the broker, not yet accepted.
    candidate: Option<Loaded>,
    listeners: Listeners,
    health: Option<UnixListener>,
    notify: Option<Notify>,
    channel: Option<OwnedFd>,
    control: Option<Control>,
    oom_kills: Option<u64>,
    status: String,
    /// Why the broker, by its own word, is not healthy.
    ill: String,
    reloads: u64,
    last_reload: Option<String>,
    home: Home,
    certificates: Certificates,
    /// As of the last turn: nothing is begun any more.
    stops: bool,
    eyes: Eyes,
    report: Option<repair::Report>,
}

/// Where the broker lives.
#[derive(Clone, Default)]
pub(super) struct Home {
    /// The folder to mend: `/mosquitto`, or what stands for it. `None`: nothing is mended.
    pub(super) root: Option<PathBuf>,
    /// Who the broker becomes, whatever the configuration says.
    pub(super) identity: Option<Identity>,
    /// Called once, when the broker is ready for the first time.
    pub(super) on_ready: Option<fn(&Broker)>,
}

impl Broker {
    /// `watchdog`: how often the broker is to give a sign of life, in milliseconds.
    pub(super) fn new(arguments: Arguments, watchdog: Option<Millis>, home: Home) -> Self {
        Self {
            arguments,
            voice: Voice::default(),
            watchdog,
            root: os::process::uid() == 0,
            identity: None,
            conf: None,
            archive: None,
            candidate: None,
            listeners: Listeners::default(),
            health: None,
            notify: None,
            channel: None,
            control: None,
            oom_kills: None,
            status: String::new(),
            ill: String::new(),
            reloads: 0,
            last_reload: None,
            home,
            certificates: Certificates::new(),
            stops: false,
            eyes: Eyes::default(),
            report: None,
        }
    }

    pub(super) fn conf(&self) -> Option<&Conf> {
        self.conf.as_ref()
    }

    pub(super) fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// Takes the parts of a configuration that are the supervisor's own.
    fn adopt(&mut self, conf: &Conf) {
        self.voice.reconfigure(&conf.log);
        if self.root {
            let passwd = os::accounts::passwd_file();
            let (identity, warning) = account::resolve(&conf.user, &passwd, |name| std::env::var(name).ok());
            self.identity = if self.home.identity.is_some() { self.home.identity.filter(|who| who.uid != 0) } else { identity };
            self.eyes.identity = self.identity;
            if let Some(warning) = warning {
                self.say(LogType::Warning, &warning);
            }
        }
    }

    fn load(&mut self) -> Result<Loaded, Refusal> {
        self.eyes.stand_ins = self.certificates.stand_ins();
        let stand_ins = &self.eyes.stand_ins;
        let mut given = self.certificates.give();
        let mut loaded = generation::load(&self.eyes, &self.arguments, |conf| given.look(conf, stand_ins))?;
        given.read(&loaded.conf, &loaded.files, stand_ins);
        loaded.given = given;
        Ok(loaded)
    }

    /// What is to be mended, if anything.
    fn repair_request(&self) -> Option<repair::Request> {
        let root = self.home.root.as_ref()?;
        Some(repair::Request {
            config: self.arguments.config.clone().unwrap_or_else(|| root.join("config/mosquitto.conf")),
            root: root.clone(),
            owner: self.identity.map(|who| (who.uid, who.gid)),
            named: repair::Named::default(),
            in_use: self.eyes.substitutes.clone(),
            dry_run: false,
            full: false,
            time_budget: REPAIR_BUDGET,
        })
    }

    fn mend(&mut self) {
        let Some(request) = self.repair_request() else { return };
        let before = certbot_image::Before::look(&request.root, &request.config);
        let mut report =
            repair::run(&request, |files| generation::read_conf(files, &self.arguments).ok().map(|conf| repair::Named::from_conf(&conf)));
        let secrets = report.secrets.take();
        for line in report.lines.iter().chain(&secrets) {
            voice::print(line);
        }
        if self.report.is_none() {
            before.lines().iter().for_each(|line| voice::print(line));
        }
        self.eyes.substitutes.clone_from(&report.substitutes);
        self.report = Some(report);
    }

    /// The sockets that are not the configuration's.
    fn open_private(&mut self) {
        if self.notify.is_none() {
            match Notify::new() {
                Ok(notify) => self.notify = Some(notify),
                Err(error) => self.say(LogType::Error, &format!("Error: the broker cannot tell us that it is ready: {error}.")),
            }
        }
        if self.health.is_none() {
            match local_socket::listen(Kind::Health) {
                Ok((listener, _)) => self.health = Some(listener),
                Err(error) => self.say(LogType::Warning, &format!("Warning: no private socket for the health check: {error}.")),
            }
        }
        if self.control.is_none() {
            match Control::new() {
                Ok(control) => self.control = Some(control),
                Err(error) => self.say(LogType::Warning, &format!("Warning: darner reload and status will not work: {error}.")),
            }
        }
    }

    fn verdict(&mut self, accepted: bool, text: &str) {
        let (log_type, code) = if accepted { (LogType::Notice, ExitCode::Ok) } else { (LogType::Error, ExitCode::Failure) };
        self.say(log_type, text);
        self.last_reload = Some(text.to_owned());
        let done = self.reloads;
        if let Some(control) = &mut self.control {
            control.answer_all(code, text, |waits| matches!(waits, Waits::Verdict(wanted) if wanted <= done));
        }
    }

    fn moves_listeners(&self, new: &Conf) -> bool {
        self.conf.as_ref().is_some_and(|conf| conf.listeners != new.listeners)
    }

    fn heard_from_broker(&mut self, events: &mut VecDeque<Event>) {
        let Some(channel) = &self.channel else { return };
        let mut buffer = [0; 2048];
        let text = match os::fd_passing::receive(channel, &mut buffer) {
            Ok(0) => None,
            Ok(len) => Some(String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).trim_end().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => None,
        };
        let Some(text) = text else {
            self.channel = None;
            return;
        };
        if self.candidate.is_none() {
            // The answer to the generation of the start, or to a reload that was given up.
            if let Some(reason) = text.strip_prefix("REFUSED") {
                self.say(LogType::Error, &format!("The broker refused its configuration:{reason}"));
            }
            return;
        }
        if let Some(reason) = text.strip_prefix("REFUSED") {
            let moved = self.candidate.take().is_some_and(|loaded| self.moves_listeners(&loaded.conf));
            let advice = if moved { " darner restart can." } else { "" };
            self.verdict(false, &format!("Reload refused, the old configuration stays:{reason}{advice}"));
        } else if let Some(loaded) = self.candidate.take() {
            let waiting = self.conf.as_ref().map(|conf| change::restart_only(conf, &loaded.conf)).unwrap_or_default();
            self.voice.reconfigure(&loaded.conf.log);
            self.certificates.served(loaded.given, &self.voice);
            self.conf = Some(loaded.conf);
            self.archive = Some(loaded.archive);
            let rest = if waiting.is_empty() { String::new() } else { format!(" But {}: darner restart.", waiting.join("; ")) };
            self.verdict(true, &format!("Reload done: the new configuration is in use.{rest}"));
        }
        events.push_back(Event::ReloadAnswered);
    }

    fn answer(&mut self, index: usize, code: ExitCode, text: &str) {
        if let Some(control) = &mut self.control {
            control.answer(index, code, text);
        }
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            listeners: self.listeners.places(),
            control: self.control.as_ref().map(Control::name),
            config: self.arguments.config.as_deref(),
            identity: self.identity,
            status: &self.status,
            last_reload: self.last_reload.as_deref(),
            repair: self.report.as_ref(),
        }
    }
}

/// What `darner status` tells.
pub(super) struct Facts<'a> {
    pub(super) listeners: Vec<String>,
    pub(super) control: Option<&'a str>,
    pub(super) config: Option<&'a std::path::Path>,
    pub(super) identity: Option<Identity>,
    /// The broker's own last word about itself.
    pub(super) status: &'a str,
    pub(super) last_reload: Option<&'a str>,
    pub(super) repair: Option<&'a repair::Report>,
}

fn stops(phase: Phase) -> bool {
    matches!(phase, Phase::Stopping | Phase::Sweeping | Phase::Finished)
}

impl Service for Broker {
    fn meaning(&self, signal: i32) -> Meaning {
        signal_table::over_broker(signal)
    }

    fn say(&self, log_type: LogType, text: &str) {
        self.voice.say(log_type, text);
    }

    fn say_of_child(&self, log_type: LogType, text: &str) {
        self.voice.say(log_type, &format!("The broker {text}."));
    }

    fn repair(&mut self) {
        // Without a readable configuration the defaults say who the broker is.
        let conf = generation::read_conf(&self.eyes, &self.arguments).unwrap_or_default();
        self.adopt(&conf);
        self.mend();
    }

    fn prepare(&mut self) -> Result<(), ExitCode> {
        self.certificates.begin(&self.voice);
        let loaded = self.load().map_err(|refusal| {
            for (log_type, line) in &refusal.log_lines {
                self.say(*log_type, line);
            }
            if let Some(advice) = self.certificates.advice(&refusal.log_lines) {
                self.say(LogType::Error, &advice);
            }
            let code = refusal.code.code();
            self.say(
                LogType::Error,
                &format!("Error: the broker was not started (exit code {code}). Correct the above, then start again."),
            );
            refusal.code
        })?;
        self.adopt(&loaded.conf);
        if let Err(error) = self.listeners.follow(&loaded.conf, self.identity) {
            self.say(LogType::Error, &error.to_string());
            return Err(ExitCode::Failure);
        }
        self.open_private();
        self.oom_kills = oom::kills();
        self.certificates.served(loaded.given, &self.voice);
        self.conf = Some(loaded.conf);
        self.archive = Some(loaded.archive);
        Ok(())
    }

    fn spawn(&mut self) -> Result<i32, SpawnError> {
        match self.try_spawn() {
            Err(SpawnError { step: Step::Identity, error }) => {
                let who = self.identity.map(|identity| format!("{}:{}", identity.uid, identity.gid)).unwrap_or_default();
                let text = format!(
                    "Warning: the broker cannot become {who} ({error}) and runs as root. Give the container CAP_SETUID and CAP_SETGID, or start it with user: \"{who}\"."
                );
                self.say(LogType::Warning, &text);
                self.identity = None;
                self.root = false;
                self.try_spawn()
            }
            result => result,
        }
    }

    fn child_uid(&self) -> Option<u32> {
        self.identity.map(|identity| identity.uid)
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = Vec::new();
        fds.extend(self.notify.as_ref().map(Notify::as_fd));
        fds.extend(self.channel.as_ref().map(|channel| channel.as_fd()));
        fds.extend(self.control.iter().flat_map(Control::fds));
        fds.extend(self.certificates.sources());
        fds
    }

    fn readable(&mut self, fd: RawFd, state: &State<'_>, events: &mut VecDeque<Event>) {
        if let Some(notify) = self.notify.as_ref().filter(|notify| os::process::number(&notify.as_fd()) == fd) {
            while let Some(messages) = notify.receive(state.child) {
                for message in messages {
                    match message {
                        Message::Ready => events.push_back(Event::BecameReady),
                        Message::Alive => events.push_back(Event::Petted),
                        Message::Status(text) => self.status = text,
                        Message::Ill(text) => self.ill = text,
                    }
                }
            }
        } else if self.channel.as_ref().is_some_and(|channel| os::process::number(channel) == fd) {
            self.heard_from_broker(events);
        } else if self.certificates.readable(fd, &self.voice) {
        } else {
            let own = os::process::uid();
            let child = self.child_uid();
            let permitted = |uid| uid == 0 || uid == own || Some(uid) == child;
            let asked = self.control.as_mut().and_then(|control| control.readable(fd, state.now, permitted));
            if let Some((index, request)) = asked {
                self.asked(index, request, state, events);
            }
        }
    }

    fn reload(&mut self, events: &mut VecDeque<Event>) {
        self.reloads += 1;
        if !self.eyes.substitutes.is_empty() {
            // What was unusable may be mended by now.
            self.mend();
        }
        let mut loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(refusal) => {
                self.verdict(false, &format!("Reload refused, the old configuration stays: {}", refusal.one_line()));
                return events.push_back(Event::ReloadAnswered);
            }
        };
        let sent = match &self.channel {
            Some(channel) => os::fd_passing::send(channel, b"RELOAD", &mut loaded.archive),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        match sent {
            Ok(()) => self.candidate = Some(loaded),
            Err(error) => {
                self.verdict(false, &format!("Reload failed, the broker cannot be reached: {error}."));
                events.push_back(Event::ReloadAnswered);
            }
        }
    }

    fn reload_timed_out(&mut self) {
        self.candidate = None;
        self.verdict(false, "Reload failed: the broker did not answer; the old configuration stays.");
    }

    fn ended(&mut self, ending: Ending) {
        self.channel = None;
        self.status.clear();
        self.ill.clear();
        let before = std::mem::replace(&mut self.oom_kills, oom::kills());
        if let (Ending::Killed(9), Some(before), Some(after)) = (ending, before, self.oom_kills)
            && after > before
        {
            let limit = oom::limit_mib().map_or("no limit of its own".to_owned(), |mib| format!("limit {mib} MiB"));
            self.say(LogType::Error, &format!("The broker was killed because memory ran out (container: {limit}; kills so far: {after}). Raise the limit, or lower max_queued_messages and max_queued_bytes."));
        }
        if self.candidate.take().is_some() {
            self.verdict(false, "Reload failed: the broker ended meanwhile; the old configuration stays.");
        }
    }

    fn reaped(&mut self, pid: i32, ending: Ending) {
        self.certificates.reaped(pid, ending, &self.voice);
    }

    fn turn(&mut self, state: &State<'_>, events: &mut VecDeque<Event>) {
        let phase = state.machine.phase();
        self.stops = stops(phase);
        if !self.stops {
            self.certify(state, events);
        }
        if phase == Phase::Ready
            && let Some(on_ready) = self.home.on_ready.take()
        {
            on_ready(self);
        }
        let Some(control) = &mut self.control else { return };
        control.expire(state.now);
        if phase == Phase::Ready {
            control.answer_all(
                ExitCode::Ok,
                "Restarted: the broker is ready.",
                |waits| matches!(waits, Waits::ReadyAfter(old) if old != state.child),
            );
        }
        if phase == Phase::Finished {
            control.answer_all(ExitCode::Failure, "darner ended.", |_| true);
        }
    }

    fn next_turn(&self) -> Option<Millis> {
        let certificates = if self.stops { None } else { self.certificates.next_turn() };
        self.control.as_ref().and_then(Control::next_deadline).into_iter().chain(certificates).min()
    }

    fn dump(&self, state: &State<'_>) {
        for line in super::status::text(self, state).lines() {
            self.say(LogType::Notice, line);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for (kind, open) in [(Kind::Health, self.health.is_some()), (Kind::Control, self.control.is_some())] {
            if open {
                local_socket::forget(kind);
            }
        }
    }
}
