"""One message through WebSockets over TLS, with paho: PORT, CAFILE, user, password. The certificate has to be DOMAIN's."""

import socket
import ssl
import sys
import threading

import paho.mqtt.client as mqtt

PORT, CAFILE, USER, PASSWORD, DOMAIN = sys.argv[1:6]

# The test's name leads nowhere from here; the certificate is still looked at under that name.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: resolve("127.0.0.1" if host == DOMAIN else host, *rest, **more)

came = threading.Event()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets", protocol=mqtt.MQTTv5)
client.username_pw_set(USER, PASSWORD)
client.tls_set(CAFILE, cert_reqs=ssl.CERT_REQUIRED)
client.on_connect = lambda client, *_: client.subscribe("through/tls", 1)
client.on_subscribe = lambda client, *_: client.publish("through/tls", "over websockets", 1)
client.on_message = lambda _client, _data, message: message.payload == b"over websockets" and came.set()
client.connect(DOMAIN, int(PORT))
client.loop_start()
if not came.wait(30):
    sys.exit("nothing came back")
client.disconnect()
print("went well")
