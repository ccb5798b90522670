package io.github.tickets_service.client;

/** The text of metadata. gRPC would send {@code ?} for what is not ASCII, and leave out a value with a line break. */
final class Plain {
  private Plain() {}

  /** The same text; what it is must not be quoted, as it may be a secret. */
  static String text(String what, String text) {
    if (!text.chars().allMatch(character -> character >= 0x20 && character <= 0x7e)) {
      throw new IllegalArgumentException(what + ": it has characters that are not printable ASCII");
    }
    return text;
  }
}
