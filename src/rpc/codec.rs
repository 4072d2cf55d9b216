//! Messages as prost reads and writes them, but for two things: one with more fields than any of ours is refused before it is decoded, for
//! half a million empty ones fit into a megabyte and take two hundred when they are decoded; and buffers begin small, for nearly all
//! messages are, while a stream keeps its buffer as long as it is open.

use std::marker::PhantomData;

use prost::{Message, bytes::Buf as _, decode_length_delimiter};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

use super::undecodable::UNDECODABLE;

/// The most fields of a message itself, each item of a list being one: a full BatchTouch has a thousand. What is within them is not counted.
const MOST_FIELDS: usize = 8192;

/// How large a buffer is at first: it grows for what is larger. tonic's has 8 KiB.
const BUFFER: usize = 1024;

/// How much is written at once where many messages are waiting (tonic's default).
const ENOUGH: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, ENOUGH)
}

/// What reads and writes the messages of a method.
pub(super) struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = BoundedDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<T, U>::raw_decoder(buffers()))
    }
}

/// Decodes what has not too many fields.
pub(super) struct BoundedDecoder<D>(D);

impl<D: Decoder<Error = Status>> Decoder for BoundedDecoder<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        // It is whole, and in one piece.
        if has_more_fields(src.chunk(), MOST_FIELDS) {
            let problem = format!(
                "{UNDECODABLE}it has more than {MOST_FIELDS} fields, of which each item of a list is one: send less at once"
            );
            return Err(Status::internal(problem));
        }
        self.0.decode(src)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Whether an encoded message has so many fields, where each item of a list is one. What cannot be read is prost's to refuse.
fn has_more_fields(mut rest: &[u8], most: usize) -> bool {
    // A field has two bytes at least.
    if rest.len() <= 2 * most {
        return false;
    }
    let mut count = 0;
    // A field's number and its type are a varint, as a length is.
    while let Ok(key) = decode_length_delimiter(&mut rest) {
        count += 1;
        if count > most {
            return true;
        }
        let length = match key & 7 {
            0 => decode_length_delimiter(&mut rest).map(|_| 0),
            1 => Ok(8),
            2 => decode_length_delimiter(&mut rest),
            5 => Ok(4),
            // The beginning or the end of a group.
            _ => Ok(0),
        };
        let Some(behind) = length.ok().and_then(|length| rest.get(length..)) else {
            break;
        };
        rest = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::v1::{BatchTouchRequest, TouchRequest};

    #[test]
    fn fields_are_counted_as_prost_reads_them() {
        let touch = TouchRequest {
            session_id: "x".repeat(20),
            activity: 1,
            ..TouchRequest::default()
        };
        let batch = BatchTouchRequest {
            touches: vec![touch; 100],
        };
        let encoded = batch.encode_to_vec();
        let counted =
            |encoded: &[u8]| (1..200).find(|most| 2 * most < encoded.len() && !has_more_fields(encoded, *most));
        assert_eq!(counted(&encoded), Some(100));
        let numbers = [
            &encoded[..],
            &[0x98, 6, 0x80, 1],
            &[0x9d, 6, 1, 2, 3, 4],
            &[0x99, 6, 1, 2, 3, 4, 5, 6, 7, 8],
        ]
        .concat();
        assert!(BatchTouchRequest::decode(&numbers[..]).is_ok());
        assert_eq!(counted(&numbers), Some(103));
        for cut in [1, 5, encoded.len() - 1] {
            assert!(!has_more_fields(&encoded[..cut], 100));
        }
        assert!(has_more_fields(&[0x0a, 0].repeat(MOST_FIELDS + 1), MOST_FIELDS));
        assert!(!has_more_fields(&[0x0a, 0].repeat(MOST_FIELDS), MOST_FIELDS));
    }
}
