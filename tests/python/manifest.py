"""Compares the manifest for OpenShift with the compose file beside it and with the configuration that the image puts into /myuser.
Arguments: the example's folder, that configuration."""

import pathlib
import re
import sys

import yaml

folder, defaults = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text()
kinds = {}
for document in yaml.safe_load_all((folder / "mosquitto.yaml").read_text()):
    kinds.setdefault(document["kind"], []).append(document)
compose = yaml.safe_load((folder / "docker-compose.yml").read_text())
service = compose["services"]["mosquitto"]
assert sorted(kinds) == ["Deployment", "PersistentVolumeClaim", "Route", "Service"], sorted(kinds)

(deployment,) = kinds["Deployment"]
pod = deployment["spec"]["template"]
labels = pod["metadata"]["labels"]
(container,) = pod["spec"]["containers"]
assert deployment["spec"]["selector"]["matchLabels"] == labels
assert deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"]["type"] == "Recreate"

# Image, command, place: arguments and not a command, so that the image's entrypoint is PID 1.
assert container["image"] == service["image"] == "darner"
assert container["args"] == service["command"] and "command" not in container, container
assert container["args"][-1] == "/myuser/mosquitto.conf"
(mount,) = container["volumeMounts"]
assert mount["mountPath"] == "/myuser" and f"{mount['name']}:/myuser" in service["volumes"]
(volume,) = pod["spec"]["volumes"]
(claim,) = kinds["PersistentVolumeClaim"]
assert volume["name"] == mount["name"] and volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]

# Ports.
listeners = sorted(int(port) for port in re.findall(r"^listener (\d+)$", defaults, re.M))
assert listeners == sorted(port["containerPort"] for port in container["ports"]), listeners
assert listeners == sorted(int(port.split(":")[-1]) for port in service["ports"])
assert listeners == sorted(port["targetPort"] for one in kinds["Service"] for port in one["spec"]["ports"])
assert all(one["spec"]["selector"] == labels for one in kinds["Service"])
(route,) = kinds["Route"]
(target,) = [one for one in kinds["Service"] if one["metadata"]["name"] == route["spec"]["to"]["name"]]
(port,) = target["spec"]["ports"]
assert (port["port"], port["name"]) == (8883, route["spec"]["port"]["targetPort"]), port
assert route["spec"]["tls"]["termination"] == "passthrough"
for probe in ("livenessProbe", "readinessProbe"):
    assert container[probe]["tcpSocket"]["port"] == 1883

# Variables, all of which the README explains.
readme = (folder / "../../README.md").read_text()
names = {variable["name"] for variable in container["env"]}
assert names == {line.split("=")[0] for line in service["environment"]}, names
assert all(f"| `{name}` |" in readme for name in names), names
secret = next(variable for variable in container["env"] if variable["name"] == "DARNER_ADMIN_PASSWORD")
assert secret["valueFrom"]["secretKeyRef"]["optional"] is True and "value" not in secret

# What the SCC restricted-v2 allows, and the compose file rehearses.
own, whole = container["securityContext"], pod["spec"]["securityContext"]
assert whole["runAsNonRoot"] is True and whole["seccompProfile"]["type"] == "RuntimeDefault"
assert not {"runAsUser", "fsGroup"} & (set(own) | set(whole)), "the project's range decides"
assert own["allowPrivilegeEscalation"] is False and own["privileged"] is False
assert own["capabilities"] == {"drop": service["cap_drop"]} == {"drop": ["ALL"]}
assert own["readOnlyRootFilesystem"] is service["read_only"] is True
assert service["security_opt"] == ["no-new-privileges:true"] and re.fullmatch(r"10\d{8}:0", service["user"])
assert container["resources"]["limits"]["memory"].removesuffix("i").lower() == service["mem_limit"]

# The patch adds a mount of a file to what is there.
patch = yaml.safe_load((folder / "passwd-patch.yaml").read_text())["spec"]["template"]["spec"]
(patched,) = patch["containers"]
(mount,) = patched["volumeMounts"]
assert patched["name"] == container["name"] and mount["subPath"] == "passwd" and mount["readOnly"] is True
assert f"password_file {mount['mountPath']}" in defaults.splitlines()
assert patch["volumes"] == [{"name": mount["name"], "configMap": {"name": "passwd"}}]
