//! Properties of MQTT 5 (2.2.2): one table says identifier, type, packets and whether one may repeat.

/// One property with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(Box<str>),
    ResponseTopic(Box<str>),
    CorrelationData(Box<[u8]>),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(Box<str>),
    ServerKeepAlive(u16),
    AuthenticationMethod(Box<str>),
    AuthenticationData(Box<[u8]>),
    RequestProblemInformation(u8),
    WillDelayInterval(u32),
    RequestResponseInformation(u8),
    ResponseInformation(Box<str>),
    ServerReference(Box<str>),
    ReasonString(Box<str>),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    UserProperty(Box<str>, Box<str>),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(u8),
    SubscriptionIdentifierAvailable(u8),
    SharedSubscriptionAvailable(u8),
}

/// Properties in wire order. Empty (and unallocated) in version 3.
pub type Properties = Vec<Property>;
